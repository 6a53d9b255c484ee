"""What plot_1D.py and plot_2D.py share: style, saving, and the marks for values that can't be drawn.

A module of its own because the 1-D and 2-D figures of one paper must look alike, save alike (same fonts, same bytes
at every run, moved into place whole) and mark missing values alike; two copies would drift apart.
matplotlib is imported inside the functions, so that --help and errors in the input don't wait for it.
"""

import contextlib
import importlib
import io
import os
import re
import sys

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.layouts import write_file

COLUMN = 3.4  # inches, one column of a two-column paper
PAGE = 7.0  # inches, both columns
FORMATS = ("pdf", "png", "svg")
DOTS_PER_INCH = {"pdf": 600, "png": 300, "svg": 300}  # in PDF and SVG for the heat maps and 3-D surfaces inside

# colours that stay apart for every kind of colour vision and, in this order, by lightness in grey print
COLOURS = ("#004488", "#DD8A33", "#9C3A58", "#000000", "#66A5D8", "#7A7A1E")
MARKERS = ("o", "s", "^", "D", "v", "P")
COLOUR_MAP = "viridis"  # lightness rises evenly, so its order survives grey print

# points without a finite value: how their area is drawn
BAD = {
    "NaN": {"hatch": "//////", "facecolor": "#E9E9E9", "edgecolor": "#5A5A5A"},
    "inf": {"hatch": "xxxxxx", "facecolor": "#E9E9E9", "edgecolor": "#5A5A5A"},
    "not computed": {"hatch": "....", "facecolor": "#FFFFFF", "edgecolor": "#9A9A9A"},
}

STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "figure.titlesize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2, "hatch.linewidth": 0.5, "grid.linewidth": 0.4, "grid.color": "#DDDDDD",
    "legend.frameon": False, "legend.handlelength": 1.8, "legend.columnspacing": 1.2, "legend.borderaxespad": 0.2,
    "axes.formatter.useoffset": False,
    "pdf.fonttype": 42,  # TrueType; many journals refuse matplotlib's default Type 3
    "svg.hashsalt": "loss surface",  # ids inside an SVG are random without it
}  # fmt: skip


def note(text):
    """Tell the user something that is no error."""
    print(f"note: {text}", file=sys.stderr)


def need(module):
    """Import a module; InputError with the command that installs its package where it is missing."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"expected the package {package} ({error}); pip install {package}") from None


@contextlib.contextmanager
def style():
    """All drawing and saving happens inside; the user's matplotlibrc has no say, so that everyone gets one picture."""
    with need("matplotlib.style").context(["default", STYLE]):
        yield


def new_figure(width, height, show=False, layout="constrained"):
    """A figure of width x height inches: a window when `show`, otherwise drawn without any display."""
    if show:
        try:
            import matplotlib.pyplot as plt

            return plt.figure(figsize=(width, height), layout=layout)
        except ImportError as error:
            raise InputError(f"can't open a window ({error}); leave --show out to write the files only") from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def show_windows():
    """Show the figures made with `show` and wait until they are closed."""
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() in ("agg", "cairo", "pdf", "pgf", "ps", "svg"):  # what pyplot picks without a display
        note("no window can be opened here; the figures are in the files")
    else:
        plt.show()
    plt.close("all")


def save(figure, path):
    """Write the figure whole to `path`, in the format of its ending; the same figure gives the same bytes.

    Raises InputError where the folder can't be written.
    """
    kind = format_of(path)
    without_date = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    image = io.BytesIO()
    figure.savefig(image, format=kind, metadata=without_date, dpi=DOTS_PER_INCH[kind])
    write_file(path, image.getvalue())
    return path


def write_figures(figures, show):
    """Save the figures, {path: figure}, show them if `show`, and return their paths: how every drawing function ends.

    The ending of a path is the format. Raises InputError where a folder can't be written.
    """
    for path, figure in figures.items():
        save(figure, path)

    if show:
        show_windows()
    return list(figures)


def format_of(path):
    """'pdf' of 'picture.pdf'; InputError for an ending that isn't a format (a surface file must not be overwritten)."""
    kind = os.path.splitext(path)[1][1:].lower()
    if kind not in FORMATS:
        raise InputError(f"expected the name of a figure to end in .pdf, .png or .svg, got {path!r}; add one of these")
    return kind


def bad_points(values):
    """{kind: mask} of the points of a masked array that have no finite value, for the kinds of `BAD` that occur."""
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    found = {"NaN": np.isnan(data) & ~mask, "inf": np.isinf(data) & ~mask, "not computed": mask}
    return {kind: where for kind, where in found.items() if where.any()}


def hatch_bad(ax, areas, zorder=0.8, transform=None):
    """Hatch areas without a finite value; returns the kinds, for the legend.

    areas: {kind of `BAD`: corners (n, 4, 2) of n rectangles, (n, 4, 3) in a 3-D figure}. transform: of the corners,
    the data's unless given.
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


def share_done(values):
    """Share of the points of a masked array that are computed, 0 to 1."""
    return float(1.0 - np.ma.getmaskarray(values).mean())


def percent(share):
    """'12 %', '1.8 %'; never rounded up to 100 % or down to 0 %."""
    if share >= 0.1:
        return f"{np.floor(100 * share + 1e-9):.0f} %"
    return f"{np.floor(1000 * share + 1e-9) / 10:g} %" if share >= 0.01 else f"{100 * share:.1g} %"


def plain_name(name):
    """'train_loss' -> 'train loss', 'train_acc' -> 'train accuracy (%)', 'max_eig' -> 'largest eigenvalue'.

    Of repeats (repeats.py): 'train_acc_low' -> 'train accuracy, lower quartile (%)'. Another metric has no unit: a
    user's 'train_top5_acc' is a mean, not a percentage.
    """
    known = {"max_eig": "largest eigenvalue", "min_eig": "smallest eigenvalue",
             "eig_ratio": "eigenvalues of the Hessian"}
    known |= {f"{split}_{end}": f"{split} {word}" for split in ("train", "test") for end, word in PERCENT.items()}
    base, statistic = of_repeats(name)
    words = known.get(base, base.replace("_", " ")) + (f", {STATISTICS[statistic]}" if statistic else "")
    return words + (" (%)" if in_percent(name) else "")


def heading(*parts, longest=48):
    """The parts that aren't empty, joined by commas, on as many lines as one column needs for them.

    A part that is too long for a line, as a network FILE.py:function(...) may be, keeps its end.
    """
    lines = []
    for part in filter(None, parts):
        part = part if len(part) <= longest else "\N{HORIZONTAL ELLIPSIS}" + part[len(part) - longest + 1 :]
        if lines and len(lines[-1]) + 2 + len(part) <= longest:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines)


PERCENT = {"acc": "accuracy", "err": "error"}
STATISTICS = {"low": "lower quartile", "high": "upper quartile", "iqr": "interquartile range"}


def of_repeats(name):
    """('train_loss', 'iqr') of 'train_loss_iqr', a statistic that repeats.py writes; ('train_loss', '') of a value."""
    base, _, end = name.rpartition("_")
    return (base, end) if end in STATISTICS and "_" in base else (name, "")


def in_percent(name):
    """Whether the values of that name are percentages: accuracies, errors, and their statistics over repeats."""
    split, _, end = of_repeats(name)[0].partition("_")
    return split in ("train", "test") and end in PERCENT


def is_loss(name):
    """Whether the values of that name are losses, on the scale of losses; the spread of losses is not."""
    base, statistic = of_repeats(name)
    return base.endswith("_loss") and statistic != "iqr"


def number(value):
    """A short text for a number of any size, powers of ten in mathtext: 0.5, 120, $2{\\times}10^{5}$."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    mantissa, exponent = f"{value:.3e}".split("e")
    mantissa = f"{float(mantissa):g}"
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else f"${mantissa}{{\\times}}{power}$"


def distinct_names(paths, longest=32):
    """What tells the paths apart: path parts and words that all have in common at either end are left out."""
    if len(set(paths)) < 2:
        return [os.path.basename(path).removesuffix(".h5")[:longest] for path in paths]
    words = [re.findall(r"[^/_]+[/_]?", path.removesuffix(".h5")) for path in paths]
    start = 0
    while len({tuple(w[: start + 1]) for w in words}) == 1:
        start += 1
    end = 0
    while end < min(map(len, words)) - start and len({tuple(w[len(w) - end - 1 :]) for w in words}) == 1:
        end += 1
    if start and any(start == len(w) - end for w in words):  # "resnet56" and "resnet56_noshort": keep the stem
        start -= 1
    names = ["".join(w[start : len(w) - end]).strip("/_") or os.path.basename(path)
             for w, path in zip(words, paths, strict=True)]
    return [name if len(name) <= longest else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}" for name in names]


def labels_for(paths, labels):
    """The user's labels, one per file, or else the distinct parts of the names."""
    if not labels:
        return distinct_names(paths)
    if len(labels) != len(paths):
        raise InputError(f"expected one label per file, got {len(labels)} for {len(paths)} files")
    return list(labels)


def picture_flags(parser):
    """Add the flags that every command that draws has: args.show, format, output, labels and title."""
    add = parser.add_argument
    add("--show", action="store_true", help="open windows besides writing the files")
    add("--format", choices=FORMATS, default="pdf", help="of the files (default pdf)")
    add("--output", default="", metavar="FILE", help="of a single figure; the ending is the format")
    add("--labels", "--label", nargs="+", default=[], metavar="TEXT", help="names of several files, for the legend")
    add("--title", default=None, help="title of the figure; '' for none (default: what is drawn)")


def add_arguments(parser):
    """The flags that both plotting scripts have."""
    parser.add_argument("--show", action="store_true", help="open windows besides writing the files")
    parser.add_argument("--format", choices=FORMATS, default="pdf", help="of the files (default pdf)")
    parser.add_argument("--output", default="", metavar="FILE", help="of a single figure; the ending is the format")
    parser.add_argument("--label", nargs="+", default=[], metavar="TEXT", help="names of several files, for the legend")
    parser.add_argument("--title", default=None, help="title of the figure; '' for none (default: what is drawn)")
