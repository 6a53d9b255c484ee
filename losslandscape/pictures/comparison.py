# ruff: noqa
"""Several surfaces side by side."""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures
from losslandscape.pictures.surfaces import *


def flatness_text(surface, name):
    """A few lines on the flatness of a finished surface; '' where flatness.py can't measure it."""
    import flatness

    if figures.share_done(surface.get(name)) < 1:  # missing points count as outside of a basin
        return "flatness: once all points are computed"
    try:
        found = flatness.measures(surface, name)
    except InputError as error:
        figures.note(f"no flatness numbers: {error}")
        return ""
    basin = found["basins"][-1]
    parts = [f"{figures.plain_name(name)} at centre {found['centre']['loss']:.3g}",
             rf"basin ($\tau$ = {basin['tau']:g}) {100 * basin['area_fraction']:.2g} % of the plane"]
    if found["sharpness"]["percent"] is not None:
        percent = figures.number(float(f"{found['sharpness']['percent']:.3g}"))
        parts.append(rf"$\epsilon$-sharpness ({found['sharpness']['epsilon']:g}) {percent} %")
    if found["convex"]["share"] is not None:
        parts.append(f"convex {100 * found['convex']['share']:.0f} %")
    return "\n".join(parts)


@figures.style()
def plot_2d_compare(surf_files, surf_name="train_loss", vmin=None, vmax=None, vlevel=None, show=False, *, log=False,
                    fmt="pdf", labels=(), output="", title=None):
    """Write filled contours of several surfaces side by side on one scale, their flatness below each.

    The way the paper compares networks with and without shortcuts (Li et al. 2018, figure 5). The numbers are those of
    flatness.py. Written to FIRST_FILE_SURFNAME_2dcompare.pdf.
    """
    names = figures.labels_for(surf_files, labels)
    surfaces = [read_2d(path) for path in surf_files]
    planes = []
    for surface, path, name in zip(surfaces, surf_files, names, strict=True):
        planes.append(make_plane(surface, surface.get(surf_name), surf_name, path, title=name))
        if min(planes[-1].z.shape) < 2:
            raise InputError(f"expected at least 2 rows and 2 columns for contours, {path} has {surface.grid}")
    chosen = choose_scale(planes, vmin, vmax, vlevel, log)
    below = [flatness_text(surface, surf_name) for surface in surfaces]
    columns = min(len(planes), 2 if len(planes) in (2, 4) else 3)
    rows = -(-len(planes) // columns)
    width = {1: figures.COLUMN, 2: 0.75 * figures.PAGE}.get(columns, figures.PAGE)  # inches, as all sizes here
    each = (width - 0.1) / columns  # a panel with its tick labels, 0.45 wide
    shape = [np.ptp(p.y) / np.ptp(p.x) for p in planes]
    tall = (each - 0.45) * max(s if 1 / 3 <= s <= 3 else 0.75 for s in shape)
    above, under = (0.1 + 0.15 * max(p.title.count("\n") + 1 for p in planes),
                    0.3 + 0.14 * max(text.count("\n") + 1 for text in below))
    top = 0.2 if title else 0.0
    height = top + rows * (above + tall + under) + 0.65
    figure = figures.new_figure(width, height, show, layout="none")
    kinds, marks = set(), {}
    for i, (shown, text) in enumerate(zip(planes, below, strict=True)):
        row, column = divmod(i, columns)
        y = height - top - row * (above + tall + under) - above - tall
        ax = figure.add_axes(((column * each + 0.45) / width, y / height, (each - 0.45) / width, tall / height))
        kinds |= set(hatch_bad(ax, shown, cells=False))
        filled = fill_contours(ax, shown, chosen)
        # each panel has a minimum of its own, so the legend names no value
        marks |= {mark.get_label().partition(",")[0]: mark for mark in mark_points(ax, shown)}
        ax.set_title(shown.title)
        ax.set_aspect("equal" if 1 / 3 <= shape[i] <= 3 else "auto")
        ax.locator_params(nbins=5)
        ax.set_xlabel(text, fontsize=7)
    bar = colour_bar(figure, filled, figures.plain_name(surf_name), filled.levels, orientation="horizontal",
                     cax=figure.add_axes((0.15, 0.56 / height, 0.7, 0.09 / height)))
    bar.ax.xaxis.labelpad = 2
    if title:
        figure.suptitle(title, y=1 - 0.03 / height, va="top")
    marks |= {patch.get_label(): patch for patch in figures.bad_handles(kinds)}
    if marks:
        figure.legend(marks.values(), marks.keys(), loc="lower center", ncols=len(marks))
    written = [figures.save(figure, output or f"{surf_files[0]}_{surf_name}_2dcompare.{fmt}")]
    if show:
        figures.show_windows()
    return written
