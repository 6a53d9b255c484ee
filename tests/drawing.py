"""Surfaces with known values, and what the figures of them show, for the tests of 2-D pictures."""

import numpy as np
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.contour import QuadContourSet

from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_surface
from tests.conftest import GOLDEN

SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
NON_SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5"
              "_[-1.0,1.0,3]x[-0.5,0.5,5].h5")
LINE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"
PCA = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5"
PROJECTION = GOLDEN / "PCA_weights_save_epoch=2" / "directions.h5_proj_cos.h5"
KINDS = ["2dcontour", "2dcontourf", "2dheat", "3dsurface"]
FLAT_KINDS = KINDS[:3]


# ---------------------------------------------------------------- surfaces


def save_surface(path, f, x="-1:1:21", y="-1:1:21", name="train_loss", computed=None, **provenance):
    """Write a surface with `name` = f(x, y) and return it."""
    grid = Grid.parse(x, y)
    values = np.broadcast_to(np.asarray(f(*np.meshgrid(grid.x, grid.y)), float), grid.shape)  # (ny, nx)
    if computed is None:
        computed = np.ones(grid.shape, bool)
    surface = Surface(grid, {name: values.copy()}, {name: computed}, "", provenance)
    write_surface(path, surface)
    return surface


def uneven_bowl(x, y):
    return 0.2 + 4 * x**2 + 6 * y**2 + 0.5 * np.sin(5 * x) * y


def bowl_with_gaps(x, y):
    z = uneven_bowl(x, y)
    z[2:6, 3:9] = np.nan
    z[15:18, 16:] = np.inf
    return z


def coarse_points(shape, step):
    """Mask of every step-th row and column, counted from the middle."""
    rows, columns = (((np.arange(n) - n // 2) % step == 0) for n in shape)
    return np.logical_and.outer(rows, columns)


# ---------------------------------------------------------------- figures


def artists_of(figure, kind):
    return [artist for ax in figure.axes for artist in ax.get_children() if isinstance(artist, kind)]


def heat_mesh(figure):
    (mesh,) = [artist for artist in figure.axes[0].get_children() if isinstance(artist, QuadMesh)]
    return mesh


def contour_lines(figure):
    return [contours for contours in artists_of(figure, QuadContourSet) if not contours.filled][0]


def hatched_areas(figure):
    """{kind: collection} of the hatched areas."""
    return {area.get_label(): area for area in artists_of(figure, PolyCollection) if area.get_hatch()}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
