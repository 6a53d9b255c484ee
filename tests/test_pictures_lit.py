"""Lit pictures and films: the camera by its geometry, the pictures by their pixels."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from losslandscape.errors import InputError
from losslandscape.pictures.lit import (
    MARGIN,
    VIEW_ANGLE,
    VIEWS,
    Appearance,
    camera_axes,
    camera_position,
    content_aspect,
    gif_bytes,
    lit_picture,
    require_rendering,
)
from losslandscape.pictures.mesh import box_mesh, surface_heights
from tests.made_surfaces import bowl, surface_of


def box_of(*arguments, **settings):
    return box_mesh(surface_heights(surface_of(*arguments, **settings)))


@pytest.fixture(scope="module")
def drawing():
    """A machine without libEGL and libOSMesa can compute and export, but not draw."""
    try:
        require_rendering()
    except InputError as error:
        pytest.skip(str(error))


# ---------------------------------------------------------------- the camera


@pytest.mark.parametrize("view", [*VIEWS.values(), (17.0, -35.0)])
@pytest.mark.parametrize("aspect", [0.6, 1.0, 2.5])
def test_camera_holds_every_point_and_touches_the_margin_on_two_opposite_sides(view, aspect):
    points = np.random.default_rng(0).normal(size=(200, 3)) * [1, 0.7, 0.3]
    axes = right, up, forward = camera_axes(*view)
    np.testing.assert_allclose(np.array(axes) @ np.array(axes).T, np.eye(3), atol=1e-12)

    # where the points are in the picture: -1 and 1 are the margins
    relative = points - camera_position(points, axes, aspect)
    depth = relative @ forward
    edge = math.tan(math.radians(VIEW_ANGLE / 2)) * (1 - 2 * MARGIN)
    across = relative @ right / depth / (edge * aspect)
    upward = relative @ up / depth / edge
    assert max(abs(across).max(), abs(upward).max()) <= 1 + 1e-9
    assert any(side.min() < -1 + 1e-9 and side.max() > 1 - 1e-9 for side in (across, upward))


def test_picture_without_a_size_fits_its_content_on_all_sides():
    points = np.asarray(box_of(bowl, "0:3:15", "-0.5:0.5:9").points, float)
    axes = right, up, forward = camera_axes(*VIEWS["default"])
    aspect = content_aspect(points, axes)
    relative = points - camera_position(points, axes, aspect)
    depth = relative @ forward
    width, height = np.ptp(relative @ right / depth), np.ptp(relative @ up / depth)
    assert width / height == pytest.approx(aspect, rel=1e-3)
    assert aspect > 1.5


# ---------------------------------------------------------------- pictures


def test_transparent_picture_has_a_clear_background_and_an_opaque_surface(drawing):
    look = Appearance(transparent=True)
    pixels = np.asarray(lit_picture(box_of(bowl), VIEWS["top"], (60, 60), look))
    assert pixels.shape == (60, 60, 4)
    assert pixels[0, 0, 3] == 0 and pixels[30, 30, 3] == 255


def test_level_surface_is_drawn_flat(drawing):
    mesh = box_of(lambda x, y: 0 * x + 7)
    assert np.ptp(mesh.points[:, 2]) == 0
    assert lit_picture(mesh, (0, 40), (32, 32)).size == (32, 32)


# ---------------------------------------------------------------- films


def test_gif_of_frames_keeps_their_colours():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 10, 10), (10, 250, 10), (10, 10, 250))]
    film = Image.open(io.BytesIO(gif_bytes(frames)))
    for i, frame in enumerate(frames):
        film.seek(i)
        assert np.abs(np.asarray(film.convert("RGB"), int) - np.asarray(frame, int)).max() < 10
