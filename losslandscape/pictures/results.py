"""What --plot draws when a run is done: the pictures that go with its kind of surface.

    draw_losses(["S.h5"], Look(log=True))  ->  paths of the figures
"""

from dataclasses import dataclass, field

from losslandscape.files.layouts import read_surface
from losslandscape.pictures.curves import plot_1d_loss_err, plot_1d_loss_err_repeat
from losslandscape.pictures.paths import plot_contour_trajectory
from losslandscape.pictures.surfaces import plot_2d_contour, plot_2d_eig_ratio


@dataclass(frozen=True)
class Look:
    """How pictures are drawn; the fields are the flags of the same name."""

    loss_max: float | None = None
    vmin: float | None = None
    vmax: float | None = None
    vlevel: float | None = None
    log: bool = False
    show: bool = False

    @property
    def of_lines(self):
        return {"loss_max": self.loss_max, "log": self.log, "show": self.show}

    @property
    def of_contours(self):
        return {"vmin": self.vmin, "vmax": self.vmax, "vlevel": self.vlevel, "log": self.log, "show": self.show}


@dataclass(frozen=True)
class Paths:
    """Optimizer paths to draw over contours, and the plane that they were projected on."""

    proj_files: list = field(default_factory=list)
    dir_file: str = ""


def draw_losses(surf_file, look, name="train_loss", paths=None):
    """Curves of a line; contours and the 3-D figure of a plane, with optimizer paths over them if there are any.

    name: of the values of a plane; '' for the main ones.
    """
    surface = read_surface(surf_file)
    if surface.grid.y is None:
        return plot_1d_loss_err(surf_file, **look.of_lines)

    name = name or surface.main_name
    written = plot_2d_contour(surf_file, name, **look.of_contours)
    if paths and paths.proj_files:
        written += plot_contour_trajectory(surf_file, paths.dir_file, paths.proj_files, name, **look.of_contours)
    return written


def draw_eigenvalues(surf_file, look):
    """The ratio of the smallest to the largest eigenvalue."""
    if read_surface(surf_file).grid.y is None:
        return plot_1d_loss_err(surf_file, **look.of_lines)
    return plot_2d_eig_ratio(surf_file, show=look.show)


def draw_repeats(summary_file, first_surface_file, first_idx, last_idx, look):
    """Median and band of repeats along a line; median and interquartile range of repeats of a plane."""
    summary = read_surface(summary_file)
    name = summary.main_name
    if summary.grid.y is not None:
        contours = plot_2d_contour(summary_file, name, **look.of_contours)
        return contours + plot_2d_contour(summary_file, f"{name}_iqr", show=look.show)

    if name in ("train_loss", "test_loss"):
        return plot_1d_loss_err_repeat(first_surface_file, first_idx, last_idx, **look.of_lines)
    return plot_1d_loss_err(summary_file, log=look.log, show=look.show)  # eigenvalues, or a user's own
