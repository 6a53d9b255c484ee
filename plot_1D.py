"""Draw 1-D surfaces: loss and accuracy along a line through the trained network.

    python plot_1D.py --surf_file SURFACE.h5              # ..._1d_loss_acc.pdf, _1d_train_loss.pdf, _1d_train_err.pdf
    python plot_1D.py --surf_file SURFACE.h5 --log --xmin=-0.5 --xmax=0.5 --loss_max 2
    python plot_1D.py --surf_file SMALL.h5 LARGE.h5 --label "batch 128" "batch 8192" --output batches.pdf
    python plot_1D.py --prefix model_300.t7_weights_xignore=biasbn_xnorm=filter --idx_min 1 --idx_max 5

The last one draws the repeats that `plot_surface.py --idx 1`, `--idx 2`, ... wrote: median and quantile band.
--prefix is one of their surface files, or the beginning that the names of all of them have in common.
A file with max_eig and min_eig gives the ratio of the two as well (..._1d_eig_ratio.pdf, _1d_eig_abs_ratio.pdf).
"""

import os
import re
from dataclasses import dataclass

import numpy as np

from losslandscape.command import Parser, natural_int, run
from losslandscape.errors import InputError
from losslandscape.files import layouts as h5_util
from losslandscape.pictures import style as figures

LOSS_MAX = 5.0
HEIGHT = 2.5  # inches
SPLITS = {"train": "-", "test": "--"}  # line style
EIGENVALUES = ("max_eig", "min_eig", "max_eig_res", "min_eig_res", "eig_converged")
QUANTILES = (0.25, 0.75)
BAND = ("low", "high")  # what repeats.py calls them
LOSS_COLOUR, ACCURACY_COLOUR = figures.COLOURS[0], figures.COLOURS[1]


@dataclass(frozen=True)
class Curves:
    """What one file holds: `values[name]` are masked arrays (nx,), `train_err` and `test_err` among them.

    Of the summary of repeats (repeats.py) `values[name]` are medians, with NAME_low and NAME_high beside them.
    """

    path: str
    x: np.ndarray  # (nx,)
    values: dict
    model: str
    repeats: int = 0

    def named(self, ending):
        """[(split, values)] of the curves of that kind: 'loss', 'acc' or 'err'."""
        names = [(split, f"{split}_{ending}") for split in SPLITS]
        return [(split, self.values[name]) for split, name in names if name in self.values]

    def band(self, name):
        """(low, high), the quartiles over the repeats, or None."""
        return tuple(self.values[f"{name}_{end}"] for end in BAND) if self.has_band(name) else None

    def has_band(self, name):
        return all(f"{name}_{end}" in self.values for end in BAND)

    def of_repeats(self, name):
        """Whether `name` is a statistic of another value in this file."""
        base, statistic = figures.of_repeats(name)
        return bool(statistic) and base in self.values


def read_curves(path):
    """Curves of a 1-D surface file; InputError for a 2-D file and for one with nothing computed yet."""
    return curves_of(h5_util.read_surface(path), path)


def curves_of(surface, path="the surface"):
    """Curves of a 1-D surface."""
    if surface.grid.y is not None:
        raise InputError(f"expected a 1-D surface, {path} has {surface.grid} points; use plot_2D.py")
    if not (np.isfinite(surface.grid.x).all() and (np.diff(surface.grid.x) > 0).all()):
        raise InputError(f"expected increasing x coordinates in {path}; the file is damaged")
    values = {name: surface.get(name) for name in surface.values}
    for error, accuracy in h5_util.ERRORS.items():
        values |= {error: surface.get(error)} if accuracy in values else {}
        # of repeats: the errors' upper quartile is 100 - the accuracies' lower one
        for end, other in (("low", "high"), ("high", "low")):
            if f"{accuracy}_{other}" in values:
                values.setdefault(f"{error}_{end}", 100.0 - values[f"{accuracy}_{other}"])
    values = {name: array for name, array in values.items() if figures.share_done(array)}
    if not values:
        raise InputError(f"nothing is computed yet in {path}; run plot_surface.py on it first")
    model = surface.provenance.get("model")
    repeats = surface.provenance.get("repeats", 0)
    return Curves(path, surface.grid.x, values, model if isinstance(model, str) else "",
                  len(repeats) if isinstance(repeats, list) else int(repeats))


# ---------------------------------------------------------------- parts of a figure


def x_limits(curves, xmin, xmax):
    """The x axis: what was asked for, elsewhere the range of the data."""
    low, high = min(c.x[0] for c in curves), max(c.x[-1] for c in curves)
    asked = (low if xmin is None else xmin, high if xmax is None else xmax)
    if xmin is not None and xmax is not None and not xmin < xmax:
        raise InputError(f"expected --xmin below --xmax, got {xmin} and {xmax}")
    if asked[0] > high or asked[1] < low:
        figures.note(f"no point lies from {asked[0]:g} to {asked[1]:g}; the whole line is drawn, {low:g} to {high:g}")
        asked = (low, high)
    return asked if asked[0] < asked[1] else (asked[0] - 0.5, asked[1] + 0.5)


def limit_loss(ax, arrays, loss_max, log):
    """Scale of a loss axis: 0 to `loss_max`, by default 5 or less if the curves stay below; a log axis shows all."""
    finite = np.concatenate([np.ma.masked_invalid(a).compressed() for a in arrays])
    if not len(finite):
        return
    if log and not (finite > 0).any():
        figures.note("a log axis needs values above 0, there are none; the axis is linear")
        log = False
    if log:
        ax.set_yscale("log")
        finite = finite[finite > 0]
    low, high = finite.min(), finite.max()
    if loss_max is not None and loss_max <= low:
        figures.note(f"no loss is below --loss_max {loss_max:g}; the axis goes up to the highest, {high:.4g}")
        loss_max = None
    if log:
        margin = (high / low) ** 0.05 if high > low else 2.0
        ax.set_ylim(low / margin, loss_max or high * margin)
    else:
        default = high * 1.05 if high * 1.05 < LOSS_MAX or low >= LOSS_MAX else LOSS_MAX
        ax.set_ylim(min(0.0, low * 1.05), loss_max or default or 1.0)


def draw(ax, x, values, **style):
    """One curve with gaps where there is no finite value; points without neighbours get a dot."""
    line = np.ma.masked_invalid(values).filled(np.nan)  # (nx,)
    there = np.isfinite(line)
    beside = np.concatenate([[False], there[:-1]]) | np.concatenate([there[1:], [False]])
    alone = np.flatnonzero(there & ~beside)
    if "marker" not in style and (len(x) <= 15 or len(alone)):
        style |= {"marker": ".", "markersize": 3.5, "markevery": slice(None) if len(x) <= 15 else list(alone)}
    return ax.plot(x, line, **style)[0]


def hatch_bad(ax, x, arrays):
    """Hatch where any array has no finite value, half way to the neighbours; returns the kinds."""
    middle = (x[1:] + x[:-1]) / 2
    edges = np.concatenate([[x[0]], middle, [x[-1]]])
    if len(x) == 1:
        edges = np.array([x[0] - 0.5, x[0] + 0.5])
    kinds = {}
    for array in arrays:
        for kind, where in figures.bad_points(array).items():
            kinds[kind] = kinds.get(kind, np.zeros(len(x), bool)) | where
    for kind, where in kinds.items():
        steps = np.diff(np.concatenate([[0], where.astype(int), [0]]))
        for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            ax.axvspan(edges[start], edges[end], linewidth=0, zorder=0.5, label=kind, **figures.BAD[kind])
    return list(kinds)


def heading(title, model, what, arrays, repeats=0):
    """The user's title, or 'resnet56, train loss, 37 % of the points' without what isn't known or isn't so."""
    share = min(figures.share_done(a) for a in arrays)
    unfinished = f"{figures.percent(share)} of the points" if share < 1 else ""
    median = f"median of {repeats} directions" if repeats else ""
    return figures.heading(model, what, median, unfinished) if title is None else title


def draw_band(ax, x, low, high, colour):
    """Shade the quartiles of repeats; returns the legend entry of all such bands, which is grey."""
    from matplotlib.patches import Patch

    low, high = (np.ma.masked_invalid(array).filled(np.nan) for array in (low, high))
    ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0, label="_band")
    words = f"{QUANTILES[0]:.0%} to {QUANTILES[1]:.0%} of the repeats".replace("%", " %")
    return Patch(label=words, facecolor="0.8")


def finish(figure, ax, handles, kinds, title, columns=2):
    """Title and legend; the legend stands below the axes, where it hides nothing."""
    if title:
        ax.set_title(title)
    handles = handles + figures.bad_handles(kinds)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def label_x(ax, limits):
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlim(*limits)
    ax.set_xlabel(r"step along the direction, $\alpha$")


# ---------------------------------------------------------------- figures of one surface


def loss_acc_figure(curves, limits, loss_max, log, title, show):
    """Loss on the left axis, accuracy on the right, train solid, test dashed."""
    figure = figures.new_figure(figures.COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    losses, accuracies = curves.named("loss"), curves.named("acc")
    handles = [draw(ax, curves.x, values, color=LOSS_COLOUR, linestyle=SPLITS[split], label=f"{split} loss")
               for split, values in losses]
    bands = [(ax, f"{split}_loss", LOSS_COLOUR) for split, _ in losses]
    highest = [curves.band(name)[1] for _, name, _ in bands if curves.has_band(name)]
    limit_loss(ax, [values for _, values in losses] + highest, loss_max, log)
    ax.set_ylabel("loss", color=LOSS_COLOUR)
    if accuracies:
        right = ax.twinx()
        handles += [draw(right, curves.x, values, color=ACCURACY_COLOUR, linestyle=SPLITS[split],
                         label=f"{split} accuracy") for split, values in accuracies]
        right.set_ylim(0, 100)
        right.set_ylabel("accuracy (%)", color=ACCURACY_COLOUR)
        bands += [(right, f"{split}_acc", ACCURACY_COLOUR) for split, _ in accuracies]
    drawn = [draw_band(side, curves.x, *curves.band(name), colour) for side, name, colour in bands
             if curves.has_band(name)]
    handles += drawn[:1]
    arrays = [values for _, values in losses + accuracies]
    kinds = hatch_bad(ax, curves.x, arrays)
    label_x(ax, limits)
    what = "loss and accuracy" if accuracies else "loss"
    finish(figure, ax, handles, kinds, heading(title, curves.model, what, arrays, curves.repeats))
    return figure


def curve_figure(curves, name, limits, loss_max, log, title, show):
    """One curve: a loss, an error, or another metric."""
    figure = figures.new_figure(figures.COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    values, is_loss, band = curves.values[name], figures.is_loss(name), curves.band(name)
    colour = LOSS_COLOUR if is_loss else ACCURACY_COLOUR
    handles = [draw(ax, curves.x, values, color=colour, linestyle=SPLITS.get(name.partition("_")[0], "-"),
                    label=figures.plain_name(name))]
    handles += [draw_band(ax, curves.x, *band, colour)] if band else []
    if is_loss:
        limit_loss(ax, [values, *band[1:]] if band else [values], loss_max, log)
    elif figures.in_percent(name):
        ax.set_ylim(0, 100)
    ax.set_ylabel(figures.plain_name(name))
    label_x(ax, limits)
    kinds = hatch_bad(ax, curves.x, [values])
    what = figures.plain_name(name).removesuffix(" (%)")
    finish(figure, ax, handles, kinds, heading(title, curves.model, what, [values], curves.repeats))
    return figure


def eig_ratio_figure(curves, absolute, limits, title, show):
    """Smallest over largest eigenvalue of the Hessian along the line (Li et al. 2018, section 6, for planes)."""
    figure = figures.new_figure(figures.COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    ratio = eig_ratio(curves.values["min_eig"], curves.values["max_eig"], absolute)
    label = r"$|\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}|$" if absolute else (
        r"$\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}$")
    line = draw(ax, curves.x, ratio, color=LOSS_COLOUR, label=label)
    if absolute:
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color="0.6", linewidth=0.6, zorder=0.8)
    ax.set_ylabel(label)
    label_x(ax, limits)
    kinds = hatch_bad(ax, curves.x, [ratio])
    finish(figure, ax, [line], kinds, heading(title, curves.model, "eigenvalues of the Hessian", [ratio]))
    return figure


def eig_ratio(smallest, largest, absolute):
    """min_eig / max_eig of masked arrays, or its absolute value; 0 / 0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.ma.getdata(smallest) / np.ma.getdata(largest)
    mask = np.ma.getmaskarray(smallest) | np.ma.getmaskarray(largest)
    return np.ma.masked_array(np.abs(ratio) if absolute else ratio, mask)


@figures.style()
def plot_1d_loss_err(surf_file, xmin=None, xmax=None, loss_max=None, log=False, show=False, fmt="pdf", title=None):
    """Write the figures of one 1-D surface beside it; returns their paths.

    xmin, xmax: the x axis, None for the range of the data. loss_max: top of the loss axis; None means 5, or just
    above the curves if they stay below, and everything on a log axis. Raises InputError where there is nothing to draw.
    """
    curves = read_curves(surf_file)
    limits = x_limits([curves], xmin, xmax)
    check_loss_max(loss_max)
    ending = "_log" if log else ""
    made = {}
    if curves.named("loss"):
        made[f"_1d_loss_acc{ending}"] = loss_acc_figure(curves, limits, loss_max, log, title, show)
    for split in SPLITS:
        if f"{split}_loss" in curves.values and (split == "train" or "train_loss" not in curves.values):
            name = f"{split}_loss"
            made[f"_1d_{name}{ending}"] = curve_figure(curves, name, limits, loss_max, log, title, show)
        if f"{split}_err" in curves.values and (split == "train" or "train_err" not in curves.values):
            name = f"{split}_err"
            made[f"_1d_{name}"] = curve_figure(curves, name, limits, loss_max, log, title, show)
    for name in curves.values:
        split, _, quantity = name.partition("_")
        usual = split in SPLITS and quantity in ("loss", "acc", "err")
        if not usual and name not in EIGENVALUES and not curves.of_repeats(name):  # a metric, or the user's own
            made[f"_1d_{name}"] = curve_figure(curves, name, limits, loss_max, log, title, show)
    if {"min_eig", "max_eig"} <= curves.values.keys():
        for absolute, name in ((False, "_1d_eig_ratio"), (True, "_1d_eig_abs_ratio")):
            made[name] = eig_ratio_figure(curves, absolute, limits, title, show)
    if not made:
        raise InputError(f"expected a loss, an accuracy or eigenvalues in {surf_file}, found {sorted(curves.values)}")
    written = [figures.save(figure, f"{surf_file}{suffix}.{fmt}") for suffix, figure in made.items()]
    if show:
        figures.show_windows()
    return written


def check_loss_max(loss_max):
    if loss_max is not None and not (np.isfinite(loss_max) and loss_max > 0):
        raise InputError(f"expected --loss_max above 0, got {loss_max}")


# ---------------------------------------------------------------- several surfaces in one figure


@figures.style()
def plot_1d_compare(surf_files, labels=(), xmin=None, xmax=None, loss_max=None, log=False, show=False, fmt="pdf",
                    output="", title=None):
    """Loss (above) and error (below) of several surfaces in one figure, as the small-batch against large-batch
    figures of Li et al. 2018, section 3. Written to `output`, or to FIRST_FILE + '_1d_loss_err_compare.pdf'."""
    labels = figures.labels_for(surf_files, labels)
    all_curves = [read_curves(path) for path in surf_files]
    for curves in all_curves:
        if not curves.named("loss"):
            raise InputError(f"expected a loss in {curves.path}, found {sorted(curves.values)}; leave it out")
    check_loss_max(loss_max)
    limits = x_limits(all_curves, xmin, xmax)
    with_errors = any(curves.named("err") for curves in all_curves)
    figure = figures.new_figure(figures.COLUMN, 3.6 if with_errors else HEIGHT, show)
    axes = figure.subplots(2 if with_errors else 1, 1, sharex=True, squeeze=False)[:, 0]
    kinds, splits, handles = set(), set(), []
    for i, (curves, label) in enumerate(zip(all_curves, labels, strict=True)):
        step = max(1, len(curves.x) // 8)
        look = {"color": figures.COLOURS[i % len(figures.COLOURS)], "marker": figures.MARKERS[i % len(figures.MARKERS)],
                "markersize": 3.2, "markevery": (i * step // len(all_curves), step)}
        for ax, ending in zip(axes, ("loss", "err"), strict=False):
            for split, values in curves.named(ending):
                draw(ax, curves.x, values, linestyle=SPLITS[split], label=f"{label}, {split}", **look)
                splits.add(split)
            kinds |= set(hatch_bad(ax, curves.x, [values for _, values in curves.named(ending)]))
        handles.append(_line(label, linestyle="-", **look))
    limit_loss(axes[0], [values for curves in all_curves for _, values in curves.named("loss")], loss_max, log)
    axes[0].set_ylabel("loss")
    if with_errors:
        axes[1].set_ylim(0, 100)
        axes[1].set_ylabel("error (%)")
    label_x(axes[-1], limits)
    handles += [_line(split, linestyle=SPLITS[split], color="0.4") for split in SPLITS if split in splits]
    arrays = [values for curves in all_curves for _, values in curves.named("loss")]
    finish(figure, axes[0], handles, kinds, heading(title, "", "", arrays))
    path = output or f"{surf_files[0]}_1d_loss_err_compare{'_log' if log else ''}.{fmt}"
    written = [figures.save(figure, path)]
    if show:
        figures.show_windows()
    return written


def _line(label, **style):
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style)


# ---------------------------------------------------------------- repeats


def repeat_files(prefix, idx_min, idx_max):
    """{idx: surface file} of the repeats with idx_min <= idx <= idx_max that exist.

    `prefix` is one of the surface files, or the common beginning of their names (everything before `_idx=`).
    """
    folder = os.path.dirname(prefix) or "."
    if not os.path.isdir(folder):
        raise InputError(f"expected the repeats in the folder {folder}, it does not exist; check --prefix")
    first = prefix
    if not os.path.isfile(prefix):
        pattern = re.compile(re.escape(os.path.basename(prefix)) + r"(_idx=\d+)?(\.h5_\[.*\.h5)")
        matches = [m for m in map(pattern.fullmatch, sorted(os.listdir(folder)))
                   if m and "]x[" not in m[2] and not re.search(r"\.h5_repeats=\d+\.h5$", m[2])]  # their summary
        grids = sorted({m[2] for m in matches})
        if len(grids) > 1:
            raise InputError(f"expected the repeats of one grid, {prefix} has {', '.join(g[4:-3] for g in grids)}; "
                             "give one of the surface files as --prefix")
        first = os.path.join(os.path.dirname(prefix), matches[0][0]) if matches else ""
    found = h5_util.repeats(first) if first else {}
    kept = {idx: path for idx, path in found.items() if idx_min <= idx <= idx_max}
    if not kept:
        there = f"; there are --idx {', '.join(map(str, found))}" if found else ""
        raise InputError(f"expected surface files of --idx {idx_min} to {idx_max} for the prefix {prefix}, "
                         f"found none{there}; compute them with plot_surface.py --idx N")
    return kept


def quantiles(arrays):
    """(low, median, high), each (nx,), over the repeats with a finite value at a point; NaN where there is none."""
    stack = np.stack([np.ma.masked_invalid(a).filled(np.nan) for a in arrays])  # (repeats, nx)
    there = np.isfinite(stack).any(axis=0)  # (nx,)
    result = np.full((3, stack.shape[1]), np.nan)
    result[:, there] = np.nanquantile(stack[:, there], (QUANTILES[0], 0.5, QUANTILES[1]), axis=0)
    return result


@figures.style()
def plot_1d_loss_err_repeat(prefix, idx_min=1, idx_max=10, xmin=None, xmax=None, loss_max=None, log=False, show=False,
                            fmt="pdf", output="", title=None):
    """Median and quantile band of loss (left) and error (right) over repeated directions.

    Written to PREFIX + '_1d_loss_err_repeat.pdf'. Points where a repeat has no finite value are hatched.
    """
    files = repeat_files(prefix, idx_min, idx_max)
    all_curves = [read_curves(path) for path in files.values()]
    first = all_curves[0]
    for curves in all_curves:
        if len(curves.x) != len(first.x) or not np.allclose(curves.x, first.x):
            raise InputError(f"expected the points of {first.path} in {curves.path} too; choose repeats of one grid "
                             "with --idx_min and --idx_max")
        if not curves.named("loss"):
            raise InputError(f"expected a loss in {curves.path}, found {sorted(curves.values)}")
    check_loss_max(loss_max)
    limits = x_limits(all_curves, xmin, xmax)
    figure = figures.new_figure(figures.COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    right = ax.twinx() if any(curves.named("err") for curves in all_curves) else None
    handles, used, shown = [], [], []
    for side, ending, colour in ((ax, "loss", LOSS_COLOUR), (right, "err", ACCURACY_COLOUR)):
        for split, look in SPLITS.items():
            name = f"{split}_{ending}"
            arrays = [curves.values[name] for curves in all_curves if name in curves.values]
            if not arrays:
                continue
            low, middle, high = quantiles(arrays)
            band = draw_band(side, first.x, low, high, colour)
            handles.append(draw(side, first.x, middle, color=colour, linestyle=look,
                                label=f"{split} {'loss' if ending == 'loss' else 'error'}"))
            used += arrays
            shown += [np.ma.masked_invalid(middle), np.ma.masked_invalid(high)] if ending == "loss" else []
    limit_loss(ax, shown, loss_max, log)
    ax.set_ylabel("loss", color=LOSS_COLOUR)
    if right is not None:
        right.set_ylim(0, 100)
        right.set_ylabel("error (%)", color=ACCURACY_COLOUR)
    label_x(ax, limits)
    handles.append(band)
    kinds = hatch_bad(ax, first.x, used)
    finish(figure, ax, handles, kinds, heading(title, first.model, f"median of {len(files)} directions", used))
    written = [figures.save(figure, output or f"{prefix}_1d_loss_err_repeat.{fmt}")]
    if show:
        figures.show_windows()
    return written


# ---------------------------------------------------------------- command line


def main(argv=None):
    parser = Parser(description=__doc__.split("\n\n")[0], epilog="Figures are written beside the surface file.")
    parser.add_argument("--surf_file", "-f", nargs="+", action="extend", default=[], metavar="FILE",
                        help="1-D surface; several are drawn into one figure")
    parser.add_argument("--log", action="store_true", help="log loss axis")
    parser.add_argument("--xmin", type=float, default=None, help="left end (default: of the data; often -1)")
    parser.add_argument("--xmax", type=float, default=None, help="right end (default: of the data; often 1)")
    parser.add_argument("--loss_max", type=float, default=None,
                        help="top of the loss axis (default 5, or less when the curves stay below; all of a log axis)")
    parser.add_argument("--prefix", default="", help="repeats: a surface file, or how the names of all of them begin")
    parser.add_argument("--idx_min", type=natural_int, default=1, help="repeats: first --idx (default 1)")
    parser.add_argument("--idx_max", type=natural_int, default=10, help="repeats: last --idx (default 10)")
    figures.add_arguments(parser)
    args = parser.parse_args(argv)

    for name in ("xmin", "xmax"):
        if getattr(args, name) is not None and not np.isfinite(getattr(args, name)):
            raise InputError(f"expected a finite --{name}, got {getattr(args, name)}")
    one_figure = bool(args.prefix) + (len(args.surf_file) > 1)
    if not args.surf_file and not args.prefix:
        raise InputError("expected --surf_file FILE (or --prefix for repeats), got neither; see --help")
    if args.output:
        if one_figure != 1 or (args.prefix and args.surf_file):
            raise InputError("expected --output only where one figure is drawn: several --surf_file, or --prefix alone")
        figures.format_of(args.output)
    common = {"xmin": args.xmin, "xmax": args.xmax, "loss_max": args.loss_max, "log": args.log, "show": args.show,
              "fmt": args.format, "title": args.title}
    written = []
    if len(args.surf_file) == 1:
        written += plot_1d_loss_err(args.surf_file[0], **common)
    elif args.surf_file:
        written += plot_1d_compare(args.surf_file, args.label, output=args.output, **common)
    if args.prefix:
        written += plot_1d_loss_err_repeat(args.prefix, args.idx_min, args.idx_max, output=args.output, **common)
    print("\n".join(written))


if __name__ == "__main__":
    run(main)
