"""The style of all figures: fonts and colours, saving, and the marks of what has no finite value.

The figures of one paper must look alike, save alike (same fonts, same bytes at every run, moved
into place whole) and mark missing values alike, so all of them are made with what stands here.
matplotlib is imported inside the functions: --help and errors in the input don't wait for it.
"""

import contextlib
import importlib
import io
import math

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.atomic import write_file
from losslandscape.messages import printable, say
from losslandscape.pictures.overwrite import MAKER, ending_of, refuse_foreign_file

COLUMN = 3.4  # inches, one column of a two-column paper
PAGE = 7.0  # inches, both columns
FORMATS = ("pdf", "png", "svg")
DOTS_PER_INCH = {"pdf": 600, "png": 300, "svg": 300}  # in PDF and SVG: of the heat maps inside

# colours that stay apart for every kind of colour vision and, in this order, by lightness in grey
COLOURS = ("#004488", "#DD8A33", "#9C3A58", "#000000", "#66A5D8", "#7A7A1E")
MARKERS = ("o", "s", "^", "D", "v", "P")
COLOUR_MAP = "viridis"  # lightness rises evenly, so its order survives grey print

# how the areas of points without a finite value are drawn
BAD = {
    "NaN": {"hatch": "//////", "facecolor": "#E9E9E9", "edgecolor": "#5A5A5A"},
    "inf": {"hatch": "xxxxxx", "facecolor": "#E9E9E9", "edgecolor": "#5A5A5A"},
    "not computed": {"hatch": "....", "facecolor": "#FFFFFF", "edgecolor": "#9A9A9A"},
}

STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "figure.titlesize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2, "hatch.linewidth": 0.5,
    "grid.linewidth": 0.4, "grid.color": "#DDDDDD",
    "legend.frameon": False, "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2, "legend.borderaxespad": 0.2,
    "axes.formatter.useoffset": False,
    "pdf.fonttype": 42,  # TrueType; many journals refuse matplotlib's default Type 3
    "svg.hashsalt": "loss surface",  # ids inside an SVG are random without it
}  # fmt: skip

# what pyplot picks where there is no display
BACKENDS_WITHOUT_WINDOWS = ("agg", "cairo", "pdf", "pgf", "ps", "svg")


def note(text):
    """Tell the user something that is no error."""
    say(f"note: {printable(text, math.inf)}")


def need(module):
    """Import a module; InputError with the command that installs its package if it is missing."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"expected the package {package} ({error}); pip install {package}"
        ) from None


# ---------------------------------------------------------------- figures


@contextlib.contextmanager
def style():
    """All drawing and saving happens inside.

    The user's matplotlibrc has no say, so that everyone gets the same picture.
    """
    with need("matplotlib.style").context(["default", STYLE]):
        yield


def new_figure(width, height, show=False, layout="constrained"):
    """A figure of width x height inches: a window if `show`, otherwise without any display."""
    if show:
        try:
            import matplotlib.pyplot as plt

            return plt.figure(figsize=(width, height), layout=layout)
        except ImportError as error:
            raise InputError(
                f"can't open a window ({error}); leave --show out to write the files only"
            ) from None

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def write_figures(figures, show):
    """Save the figures, {path: figure}, show them if `show`, and return their paths.

    Every drawing function ends so. The ending of a path is the format. Raises InputError, before
    the first is written, where something else would be replaced, and where a folder can't be
    written.
    """
    for path in figures:
        refuse_foreign_file(path, format_of(path))
    for path, figure in figures.items():
        save_figure(figure, path)

    if show:
        show_windows()
    return list(figures)


def save_figure(figure, path):
    """Write the figure whole to `path`; the same figure gives the same bytes. Returns the path.

    The ending of the path is the format. Raises InputError where the folder can't be written.
    """
    file_format = format_of(path)
    metadata = {
        "pdf": {"CreationDate": None, "Creator": MAKER},
        "svg": {"Date": None, "Creator": MAKER},
        "png": {"Software": MAKER},
    }
    image = io.BytesIO()
    dpi = DOTS_PER_INCH[file_format]
    figure.savefig(image, format=file_format, metadata=metadata[file_format], dpi=dpi)
    write_file(path, image.getvalue())
    return path


def format_of(path):
    """'pdf' of 'picture.pdf'; InputError for an ending that is no format."""
    ending = ending_of(path)
    if ending not in FORMATS:
        raise InputError(
            "expected the name of a figure to end in .pdf, .png or .svg, "
            f"got {path!r}; add one of these"
        )
    return ending


def check_chosen_name(path):
    """Raise InputError unless a figure may be written to the path that the user has chosen."""
    refuse_foreign_file(path, format_of(path), chosen=True)


def show_windows():
    """Show the figures made with `show` and wait until they are closed."""
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() in BACKENDS_WITHOUT_WINDOWS:
        note("no window can be opened here; the figures are in the files")
    else:
        plt.show()
    plt.close("all")


# ---------------------------------------------------------------- points without a finite value


def bad_points(values):
    """{kind: mask} of the points of a masked array without a finite value.

    The kinds are those of `BAD` that occur. NaN and inf are results; a masked point is not computed.
    """
    data, not_computed = np.ma.getdata(values), np.ma.getmaskarray(values)
    masks = {
        "NaN": np.isnan(data) & ~not_computed,
        "inf": np.isinf(data) & ~not_computed,
        "not computed": not_computed,
    }
    return {kind: mask for kind, mask in masks.items() if mask.any()}


def share_done(values):
    """Share of the points of a masked array that are computed, 0 to 1."""
    return float(1.0 - np.ma.getmaskarray(values).mean())


def hatch_bad(ax, areas, zorder=0.8, transform=None):
    """Hatch areas without a finite value; returns their kinds, for the legend.

    areas: {kind of `BAD`: corners (n, 4, 2) of n rectangles, (n, 4, 3) in a 3-D figure}.
    transform: of the corners, the data's unless given.
    """
    from matplotlib.collections import PolyCollection

    for kind, corners in areas.items():
        look = {"linewidth": 0, "zorder": zorder, "label": kind, **BAD[kind]}
        if ax.name == "3d":
            from mpl_toolkits.mplot3d.art3d import Poly3DCollection

            ax.add_collection3d(Poly3DCollection(corners, **look))
        else:
            look["transform"] = transform or ax.transData
            ax.add_collection(PolyCollection(corners, **look), autolim=False)

    return list(areas)


def bad_handles(kinds):
    """Legend entries for the kinds of `BAD` that a figure shows."""
    from matplotlib.patches import Patch

    return [Patch(label=kind, linewidth=0.4, **BAD[kind]) for kind in BAD if kind in kinds]


# ---------------------------------------------------------------- flags


def picture_flags(parser):
    """Add the flags of every command that draws: show, format, output, labels and title."""
    add = parser.add_argument
    add("--show", action="store_true", help="open windows besides writing the files")
    add("--format", choices=FORMATS, default="pdf", help="of the files (default pdf)")
    add("--output", default="", metavar="FILE", help="of a single figure; the ending is the format")
    add("--labels", "--label", nargs="+", default=[], metavar="NAME",
        help="names of several files, for the legend")  # fmt: skip
    add("--title", default=None,
        help="title of the figure; '' for none (default: what is drawn)")  # fmt: skip
