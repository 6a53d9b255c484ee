"""losslandscape.plot: a surface as a matplotlib figure. No torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from losslandscape.errors import InputError
from losslandscape.files.grid import Surface
from losslandscape.pictures import style
from losslandscape.pictures.curves import curve_figure, curves_of, x_limits
from losslandscape.pictures.extremes import refuse_undrawable_axes
from losslandscape.pictures.labels import axis_labels
from losslandscape.pictures.panel import make_panel
from losslandscape.pictures.scales import choose_scale
from losslandscape.pictures.surfaces import FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(
    surface: Surface,
    name: str | None = None,
    kind: str = "2dcontour",
    path: str | os.PathLike = "",
    title: str | None = None,
    **scale: float | bool,
) -> Figure:
    """Draw a surface.

    Args:
        surface: of one or two dimensions.
        name: which of its values; None takes the first.
        kind: of a plane: '2dcontour', '2dcontourf', '2dheat' or '3dsurface'.
        path: where to write the figure (.pdf, .png, .svg); '' does not.
        title: None describes what is drawn.
        scale: vmin, vmax, vlevel and log of a plane; loss_max and log of a line.

    Returns:
        The matplotlib figure.

    Raises:
        InputError: for an unknown name or kind, and where `path` can't be written.
    """
    if path:
        style.check_chosen_name(os.fspath(path))
    name = name or next(iter(surface.values))
    with style.style():
        if surface.grid.y is None:
            figure = draw_line(surface, name, title, scale)
        else:
            figure = draw_plane(surface, name, kind, title, scale)
        if path:
            style.save_figure(figure, os.fspath(path))
    return figure


def draw_line(surface, name, title, scale):
    curves = curves_of(surface)
    limits = x_limits([curves], None, None)
    return curve_figure(curves, name, limits, scale.get("loss_max"), scale.get("log", False), title, False)


def draw_plane(surface, name, kind, title, scale):
    if kind not in FIGURES:
        raise InputError(f"expected kind {', '.join(FIGURES)}, got {kind!r}")
    refuse_undrawable_axes(surface, "the surface")
    panel = make_panel(surface, surface.get(name), name, "the surface", title)
    chosen_scale = choose_scale([panel], **scale)
    return FIGURES[kind](panel, chosen_scale, axis_labels(""), False, log=scale.get("log", False))
