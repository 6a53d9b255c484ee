"""Curves of 1-D surfaces: loss and accuracy along a line through the trained network.

    plot_1d_loss_err("SURFACE.h5")                  all figures of one surface
    plot_1d_compare(["SMALL.h5", "LARGE.h5"])       several surfaces in one figure
    plot_1d_loss_err_repeat("model_300.t7_...")     median and quartile band of repeated directions

Solid lines are of the training set, dashed ones of the test set. A curve has a gap where there is
no finite value, and the gap is hatched. The summary of repeats (repeats.py) is drawn as its
medians, with a band from quartile to quartile.
"""

import os
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.grid import ERRORS
from losslandscape.files.layouts import read_surface
from losslandscape.files.names import picture_file_name, repeats_of, short_stem, surface_names_in
from losslandscape.pictures.extremes import drawable_numbers, refuse_undrawable_axes
from losslandscape.pictures.mathtext import typed_text
from losslandscape.pictures.scales import MIN_USUAL_SHARE, top_that_shows
from losslandscape.pictures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    bad_handles,
    bad_points,
    hatch_bad,
    new_figure,
    note,
    share_done,
    style,
    write_figures,
)
from losslandscape.pictures.words import (
    error_words,
    heading,
    in_percent,
    is_loss,
    labels_for,
    of_repeats,
    percent,
    plain_name,
    value_label,
)

LOSS_MAX = 5.0  # the usual top of a loss axis
HEIGHT = 2.5  # inches
COMPARISON_HEIGHT = 3.6  # inches, of losses above errors
SPLITS = {"train": "-", "test": "--"}  # line style
EIGENVALUES = ("max_eig", "min_eig", "max_eig_res", "min_eig_res", "eig_converged")
OF_ESTIMATES = ("samples", "test_samples", "train_loss_rise_se", "test_loss_rise_se")
QUANTILES = (0.25, 0.75)  # of the band over repeats
LOSS_COLOUR, ACCURACY_COLOUR = COLOURS[0], COLOURS[1]
FEW_POINTS = 15  # up to so many, each point of a curve gets a dot


# ---------------------------------------------------------------- what is drawn


@dataclass(frozen=True)
class Curves:
    """What one file holds: `values[name]` are masked arrays (nx,), train_err and test_err included.

    In the summary of repeats `values[name]` are medians, with NAME_low and NAME_high beside them.
    """

    path: str
    x: np.ndarray  # (nx,)
    values: dict
    model: str
    repeats: int = 0
    errors: tuple = ()  # of the titles: (name, 'standard error at most 1 %') of estimated values

    def of_kind(self, kind):
        """[(split, values)] of the curves of a kind: 'loss', 'acc' or 'err'."""
        names = {split: f"{split}_{kind}" for split in SPLITS}
        return [(split, self.values[name]) for split, name in names.items() if name in self.values]

    def band(self, name):
        """(low, high), two standard errors or the quartiles over the repeats; None without any."""
        error = self.values.get(f"{name}_se")
        if error is not None:
            return self.values[name] - 2 * error, self.values[name] + 2 * error
        ends = (f"{name}_low", f"{name}_high")
        if not all(end in self.values for end in ends):
            return None
        return self.values[ends[0]], self.values[ends[1]]

    def band_words(self, name):
        """What the band of a curve is, in words."""
        if f"{name}_se" in self.values:
            return "two standard errors on either side"
        first, last = QUANTILES
        return f"{100 * first:.0f} % to {100 * last:.0f} % of the repeats"

    def error_words(self, name):
        """'standard error at most 1 %' of an estimated curve, else ''."""
        return dict(self.errors).get(name, "")

    def is_statistic(self, name):
        """Whether `name` is a statistic over repeats of another value in this file."""
        base, statistic = of_repeats(name)
        return statistic != "" and base in self.values


def read_curves(path):
    """Curves of a 1-D surface file; InputError for a 2-D file and for an empty one."""
    return curves_of(read_surface(path), path)


def curves_of(surface, path="the surface"):
    """Curves of a 1-D surface. Raises InputError, which names `path`, for what can't be drawn."""
    if surface.grid.y is not None:
        raise InputError(
            f"expected a 1-D surface, {path} has {surface.grid} points; "
            "use plot_2D.py"
        )
    refuse_undrawable_axes(surface, path)

    values = {name: drawable_numbers(surface.get(name), name) for name in surface.values}
    for error, accuracy in ERRORS.items():
        if accuracy in values:
            values.setdefault(error, 100.0 - values[accuracy])
        if f"{accuracy}_se" in values:
            values.setdefault(f"{error}_se", values[f"{accuracy}_se"])
        # the upper quartile of the errors is 100 - the lower one of the accuracies
        for end, other_end in (("low", "high"), ("high", "low")):
            if f"{accuracy}_{other_end}" in values:
                values.setdefault(f"{error}_{end}", 100.0 - values[f"{accuracy}_{other_end}"])

    values = {name: array for name, array in values.items() if share_done(array) > 0}
    if not values:
        raise InputError(f"nothing is computed yet in {path}; run plot_surface.py on it first")

    # the provenance of a file may hold anything
    model = surface.provenance.get("model")
    if not isinstance(model, str):
        model = ""
    repeats = surface.provenance.get("repeats", 0)
    if isinstance(repeats, list):
        repeats = len(repeats)
    errors = tuple((name, error_words(surface, name)) for name in values)
    return Curves(path, surface.grid.x, values, model, int(repeats), errors)


def eig_ratio(smallest, largest, absolute):
    """min_eig / max_eig of masked arrays, or its absolute value; 0 / 0 is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.ma.getdata(smallest) / np.ma.getdata(largest)
    if absolute:
        ratio = np.abs(ratio)
    return np.ma.masked_array(ratio, np.ma.getmaskarray(smallest) | np.ma.getmaskarray(largest))


def quantiles(arrays):
    """(3, nx): low, median and high over the repeats with a finite value at a point, else NaN.

    arrays: masked arrays (nx,), one per repeat.
    """
    stack = np.stack([gaps_as_nan(array) for array in arrays])  # (repeats, nx)
    known = np.isfinite(stack).any(axis=0)  # (nx,)
    result = np.full((3, stack.shape[1]), np.nan)
    low, high = QUANTILES
    result[:, known] = np.nanquantile(stack[:, known], (low, 0.5, high), axis=0)
    return result


def gaps_as_nan(values):
    """The masked array as a plain one, with NaN where there is no finite value."""
    return np.ma.masked_invalid(values).filled(np.nan)


# ---------------------------------------------------------------- axes


def x_limits(curves, xmin, xmax):
    """(left, right) of the x axis: xmin and xmax; where one is None, the end of the data."""
    first = min(c.x[0] for c in curves)
    last = max(c.x[-1] for c in curves)
    left = first if xmin is None else xmin
    right = last if xmax is None else xmax

    if xmin is not None and xmax is not None and not xmin < xmax:
        raise InputError(f"expected --xmin below --xmax, got {xmin} and {xmax}")
    if left > last or right < first:
        note(
            f"no point lies from {left:g} to {right:g}; "
            f"the whole line is drawn, {first:g} to {last:g}"
        )
        left, right = first, last
    if left >= right:  # a line of a single point
        return left - 0.5, right + 0.5
    return left, right


def set_x_axis(ax, limits):
    """Limits, ticks and label of the axis of the steps."""
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlim(*limits)
    ax.set_xlabel(r"step along the direction, $\alpha$")


def limit_loss(ax, arrays, loss_max, log):
    """Scale a loss axis to masked arrays: 0 to `loss_max`, by default 5, or just above the curves.

    Losses below 0 begin just below the curves. A log axis shows all of the curves that is above 0,
    up to `loss_max`.
    """
    finite = np.concatenate([np.ma.masked_invalid(array).compressed() for array in arrays])
    if len(finite) == 0:
        return
    count = len(finite)
    if log and not (finite > 0).any():
        note("a log axis needs values above 0, there are none; the axis is linear")
        log = False
    if log:
        finite = finite[finite > 0]
        if len(finite) < count:
            note(f"{count - len(finite)} of {count} values are 0 or less and have no logarithm; "
                 "the curve leaves the axis at the bottom")
    low, high = finite.min(), finite.max()
    if loss_max is not None and loss_max <= low:
        note(
            f"no loss is below --loss_max {loss_max:g}; "
            f"the axis goes up to the highest, {high:.4g}"
        )
        loss_max = None

    if log:
        ax.set_yscale("log")
        margin = 2.0
        if high > low:
            margin = (high / low) ** 0.05
        ax.set_ylim(low / margin, loss_max or high * margin)
        return

    bottom = min(0.0, low)
    top = usual_loss_top(finite)
    if loss_max is not None:
        top = loss_max
    margin = 0.05 * (top - bottom)
    if margin == 0:  # a single value, which should not lie on the rim
        margin = 0.05 * abs(low) or 1.0
        bottom -= margin

    # the user's top and the usual one are round, and so is a bottom of 0
    if loss_max is None and top != LOSS_MAX:
        top += margin
    if low < 0:
        bottom -= margin
    ax.set_ylim(bottom, top)


def usual_loss_top(finite):
    """The top of an axis for losses (n,): 5, unless almost no loss is below it, or all are."""
    low, high = finite.min(), finite.max()
    if low < 0:
        return top_that_shows(finite)
    if low < LOSS_MAX <= 1.05 * high and (finite < LOSS_MAX).mean() >= MIN_USUAL_SHARE:
        return LOSS_MAX
    return high


def check_loss_max(loss_max, log):
    """Raises InputError unless the top of the loss axis is a number, with `log` above 0, or None."""
    if loss_max is None:
        return
    if not np.isfinite(loss_max):
        raise InputError(f"expected a finite --loss_max, got {loss_max}")
    if log and loss_max <= 0:
        raise InputError(f"expected --loss_max above 0 with --log, got {loss_max:g}")


# ---------------------------------------------------------------- marks


def draw_curve(ax, x, values, **look):
    """One curve with gaps where there is no finite value; points without neighbours get a dot."""
    line = gaps_as_nan(values)  # (nx,)
    finite = np.isfinite(line)
    left_is_finite = np.concatenate([[False], finite[:-1]])
    right_is_finite = np.concatenate([finite[1:], [False]])
    alone = np.flatnonzero(finite & ~left_is_finite & ~right_is_finite)

    dots = {"marker": ".", "markersize": 3.5}
    if "marker" not in look and len(x) <= FEW_POINTS:
        look |= dots | {"markevery": slice(None)}
    elif "marker" not in look and len(alone) > 0:
        look |= dots | {"markevery": list(alone)}
    return ax.plot(x, line, **look)[0]


def draw_quartile_band(ax, x, low, high, colour, words=None):
    """Shade the quartiles of repeats; returns the legend entry of all such bands, which is grey.

    words: what else the band is.
    """
    from matplotlib.patches import Patch

    look = {"color": colour, "alpha": 0.25, "linewidth": 0, "label": "_band"}
    ax.fill_between(x, gaps_as_nan(low), gaps_as_nan(high), **look)
    first, last = QUANTILES
    words = words or f"{100 * first:.0f} % to {100 * last:.0f} % of the repeats"
    return Patch(label=words, facecolor="0.8")


def hatch_gaps(ax, x, arrays):
    """Hatch where any of the masked arrays has no finite value; returns the kinds."""
    bad = {}
    for array in arrays:
        for kind, mask in bad_points(array).items():
            bad[kind] = bad.get(kind, False) | mask

    # a point reaches half way to its neighbours
    borders = np.concatenate([[x[0]], (x[1:] + x[:-1]) / 2, [x[-1]]])  # (nx + 1,)
    if len(x) == 1:
        borders = np.array([x[0] - 0.5, x[0] + 0.5])

    # in y from the bottom of the axes to their top
    areas = {}
    for kind, mask in bad.items():
        ends = [(borders[first], borders[end]) for first, end in stretches(mask)]
        areas[kind] = [[(left, 0), (right, 0), (right, 1), (left, 1)] for left, right in ends]
    return hatch_bad(ax, areas, zorder=0.5, transform=ax.get_xaxis_transform())


def stretches(mask):
    """(first, end) of every run of True, so that mask[first:end] is one."""
    steps = np.diff(mask.astype(int), prepend=0, append=0)
    return zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)


def legend_line(label, **look):
    """A legend entry that stands for several lines."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def title_of_curves(title, model, subject, arrays, repeats=0, error=""):
    """The user's title, or 'resnet56, train loss, 37 % of the points' with what is known.

    title: None for the latter. arrays: the masked arrays that are drawn.
    """
    if title is not None:
        return typed_text(title)
    parts = [model, subject]
    if repeats:
        parts.append(f"median of {repeats} directions")
    share = min(share_done(array) for array in arrays)
    if share < 1:
        parts.append(f"{percent(share)} of the points")
    return heading(*parts, error)


def set_title_and_legend(figure, ax, handles, kinds, title):
    """Title, and a legend below the axes, where it hides nothing. kinds: of the hatched areas."""
    if title:
        ax.set_title(title)
    handles = handles + bad_handles(kinds)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(2, len(handles)))


# ---------------------------------------------------------------- figures of one surface


def loss_acc_figure(curves, limits, loss_max, log, title, show):
    """Loss on the left axis, accuracy on the right, train solid, test dashed."""
    figure = new_figure(COLUMN, HEIGHT, show)
    left = figure.add_subplot()

    losses = curves.of_kind("loss")
    handles, bands = draw_both_splits(left, curves, "loss", "loss", LOSS_COLOUR)
    shown = [values for _, values in losses]
    for split, _ in losses:
        band = curves.band(f"{split}_loss")
        if band is not None:
            shown.append(band[1])
    limit_loss(left, shown, loss_max, log)
    left.set_ylabel("loss", color=LOSS_COLOUR)
    set_x_axis(left, limits)

    accuracies = curves.of_kind("acc")
    subject = "loss"
    if accuracies:
        subject = "loss and accuracy"
        right = left.twinx()
        entries = draw_both_splits(right, curves, "acc", "accuracy", ACCURACY_COLOUR)
        handles += entries[0]
        bands += entries[1]
        right.set_ylim(0, 100)
        right.set_ylabel("accuracy (%)", color=ACCURACY_COLOUR)

    arrays = [values for _, values in losses + accuracies]
    kinds = hatch_gaps(left, curves.x, arrays)
    error = curves.error_words(f"{losses[0][0]}_loss")
    title = title_of_curves(title, curves.model, subject, arrays, curves.repeats, error)
    set_title_and_legend(figure, left, handles + bands[:1], kinds, title)
    return figure


def draw_both_splits(ax, curves, kind, word, colour):
    """Draw train and test curves of a kind, with bands; returns legend entries (curves, bands)."""
    lines, bands = [], []
    for split, values in curves.of_kind(kind):
        look = {"color": colour, "linestyle": SPLITS[split], "label": f"{split} {word}"}
        lines.append(draw_curve(ax, curves.x, values, **look))

        band = curves.band(f"{split}_{kind}")
        if band is not None:
            words = curves.band_words(f"{split}_{kind}")
            bands.append(draw_quartile_band(ax, curves.x, *band, colour, words))
    return lines, bands


def curve_figure(curves, name, limits, loss_max, log, title, show):
    """One curve: a loss, an error, or another metric."""
    figure = new_figure(COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    values, band = curves.values[name], curves.band(name)
    colour = ACCURACY_COLOUR
    if is_loss(name):
        colour = LOSS_COLOUR
    split = name.partition("_")[0]
    look = {"color": colour, "linestyle": SPLITS.get(split, "-"), "label": value_label(name)}
    handles = [draw_curve(ax, curves.x, values, **look)]

    shown = [values]
    if band is not None:
        words = curves.band_words(name)
        handles.append(draw_quartile_band(ax, curves.x, *band, colour, words))
        shown.append(band[1])
    if is_loss(name):
        limit_loss(ax, shown, loss_max, log)
    elif in_percent(name):
        ax.set_ylim(0, 100)
    ax.set_ylabel(value_label(name))
    set_x_axis(ax, limits)

    kinds = hatch_gaps(ax, curves.x, [values])
    subject = plain_name(name).removesuffix(" (%)")
    title = title_of_curves(
        title, curves.model, subject, [values], curves.repeats, curves.error_words(name))
    set_title_and_legend(figure, ax, handles, kinds, title)
    return figure


def eig_ratio_figure(curves, absolute, limits, title, show):
    """Smallest over largest eigenvalue of the Hessian (Li et al. 2018, section 6, for planes)."""
    figure = new_figure(COLUMN, HEIGHT, show)
    ax = figure.add_subplot()
    ratio = eig_ratio(curves.values["min_eig"], curves.values["max_eig"], absolute)
    if absolute:
        label = r"$|\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}|$"
    else:
        label = r"$\lambda_\mathrm{min}\,/\,\lambda_\mathrm{max}$"

    line = draw_curve(ax, curves.x, ratio, color=LOSS_COLOUR, label=label)
    if absolute:
        ax.set_ylim(bottom=0)
    else:
        ax.axhline(0, color="0.6", linewidth=0.6, zorder=0.8)
    ax.set_ylabel(label)
    set_x_axis(ax, limits)

    kinds = hatch_gaps(ax, curves.x, [ratio])
    title = title_of_curves(title, curves.model, "eigenvalues of the Hessian", [ratio])
    set_title_and_legend(figure, ax, [line], kinds, title)
    return figure


@style()
def plot_1d_loss_err(
    surf_file, xmin=None, xmax=None, loss_max=None, log=False, show=False, fmt="pdf", title=None,
    surf_name="",
):  # fmt: skip
    """Write the figures of one 1-D surface beside it; returns their paths.

    surf_name: the one value to draw; '' for all. xmin, xmax: the x axis, None for the range of the
    data. loss_max: top of the loss axis; None means 5, or just above the curves if they stay below,
    and everything on a log axis. fmt: pdf, png or svg. Raises InputError where there is nothing to
    draw.
    """
    curves = read_curves(surf_file)
    limits = x_limits([curves], xmin, xmax)
    check_loss_max(loss_max, log)
    figures = {}

    def add(ending, figure):
        figures[picture_file_name(surf_file, f"1d_{ending}", fmt)] = figure

    if surf_name:
        refuse_unknown_curve(curves, surf_name)
        ending = f"{surf_name}_log" if log and is_loss(surf_name) else surf_name
        add(ending, curve_figure(curves, surf_name, limits, loss_max, log, title, show))
        return write_figures(figures, show)

    if curves.of_kind("loss"):
        ending = "loss_acc_log" if log else "loss_acc"
        add(ending, loss_acc_figure(curves, limits, loss_max, log, title, show))

    for name in loss_and_error_names(curves):
        ending = f"{name}_log" if log and is_loss(name) else name
        add(ending, curve_figure(curves, name, limits, loss_max, log, title, show))
    for name in other_names(curves):
        add(name, curve_figure(curves, name, limits, loss_max, log, title, show))

    if {"min_eig", "max_eig"} <= curves.values.keys():
        add("eig_ratio", eig_ratio_figure(curves, False, limits, title, show))
        add("eig_abs_ratio", eig_ratio_figure(curves, True, limits, title, show))
    if not figures:
        raise InputError(
            f"expected a loss, an accuracy or eigenvalues in {surf_file}, "
            f"found {sorted(curves.values)}"
        )
    return write_figures(figures, show)


def refuse_unknown_curve(curves, name):
    """Raises InputError where the curves have no such name."""
    if name not in curves.values:
        raise InputError(
            f"expected one of {', '.join(curves.values)} as --surf_name for {curves.path}, got {name!r}"
        )


def loss_and_error_names(curves):
    """The loss and the error that get figures of their own: if possible of the training set."""
    names = []
    for split in SPLITS:
        for kind in ("loss", "err"):
            name = f"{split}_{kind}"
            if name in curves.values and (split == "train" or f"train_{kind}" not in curves.values):
                names.append(name)
    return names


def other_names(curves):
    """What else gets a figure of its own: a metric, or a value of the user's own."""
    usual = {f"{split}_{kind}" for split in SPLITS for kind in ("loss", "acc", "err")}
    usual.update(EIGENVALUES)
    usual.update(OF_ESTIMATES)
    return [name for name in curves.values if name not in usual and not curves.is_statistic(name)]


# ---------------------------------------------------------------- several surfaces in one figure


@style()
def plot_1d_compare(
    surf_files, labels=(), xmin=None, xmax=None, loss_max=None, log=False, show=False, fmt="pdf",
    output="", title=None,
):  # fmt: skip
    """Write loss (above) and error (below) of several surfaces into one figure; returns [its path].

    As the small-batch against large-batch figures of Li et al. 2018, section 3. Written to
    `output`, or to FIRST_FILE + '_1d_loss_err_compare.pdf'. labels: one per file, or none for
    what tells their names apart.
    """
    labels = labels_for(surf_files, labels)
    all_curves = [read_curves(path) for path in surf_files]
    for curves in all_curves:
        if not curves.of_kind("loss"):
            raise InputError(
                f"expected a loss in {curves.path}, found {sorted(curves.values)}; "
                "leave it out"
            )
    check_loss_max(loss_max, log)
    limits = x_limits(all_curves, xmin, xmax)

    figure = comparison_figure(all_curves, labels, limits, loss_max, log, title, show)
    kind = "1d_loss_err_compare"
    if log:
        kind += "_log"
    path = output or picture_file_name(surf_files[0], kind, fmt)
    return write_figures({path: figure}, show)


def comparison_figure(all_curves, labels, limits, loss_max, log, title, show):
    """Losses of several surfaces, and below them their errors if any has them."""
    with_errors = any(curves.of_kind("err") for curves in all_curves)
    if with_errors:
        figure = new_figure(COLUMN, COMPARISON_HEIGHT, show)
        axes = dict(zip(("loss", "err"), figure.subplots(2, 1, sharex=True), strict=True))
    else:
        figure = new_figure(COLUMN, HEIGHT, show)
        axes = {"loss": figure.add_subplot()}

    kinds, splits, handles = set(), set(), []
    for i, (curves, label) in enumerate(zip(all_curves, labels, strict=True)):
        look = look_of_surface(i, len(all_curves), len(curves.x))
        for kind, ax in axes.items():
            for split, values in curves.of_kind(kind):
                line = {"linestyle": SPLITS[split], "label": f"{label}, {split}"}
                draw_curve(ax, curves.x, values, **line, **look)
                splits.add(split)
            kinds.update(hatch_gaps(ax, curves.x, [values for _, values in curves.of_kind(kind)]))
        handles.append(legend_line(label, linestyle="-", **look))

    losses = []
    for curves in all_curves:
        losses += [values for _, values in curves.of_kind("loss")]
    limit_loss(axes["loss"], losses, loss_max, log)
    axes["loss"].set_ylabel("loss")
    if with_errors:
        axes["err"].set_ylim(0, 100)
        axes["err"].set_ylabel("error (%)")
    lowest = list(axes.values())[-1]
    set_x_axis(lowest, limits)

    for split in SPLITS:
        if split in splits:
            handles.append(legend_line(split, linestyle=SPLITS[split], color="0.4"))
    title = title_of_curves(title, "", "", losses)
    set_title_and_legend(figure, axes["loss"], handles, kinds, title)
    return figure


def look_of_surface(i, surfaces, points):
    """Colour and markers of surface number `i`; about 8 markers a curve, at different places."""
    step = max(1, points // 8)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 3.2,
        "markevery": (i * step // surfaces, step),
    }


# ---------------------------------------------------------------- repeats


def repeat_files(prefix, idx_min, idx_max):
    """{idx: surface file} of the repeats with idx_min <= idx <= idx_max that exist.

    `prefix` is one of the surface files, or the common beginning of their names (everything
    before `_idx=`).
    """
    folder = os.path.dirname(prefix) or "."
    if not os.path.isdir(folder):
        raise InputError(
            f"expected the repeats in the folder {folder}, it does not exist; "
            "check --prefix"
        )

    existing = {}
    first = prefix if os.path.isfile(prefix) else first_with_prefix(prefix)
    if first:
        existing = repeats_of(first)
    chosen = {idx: path for idx, path in existing.items() if idx_min <= idx <= idx_max}
    if not chosen:
        others = ""
        if existing:
            others = f"; there are --idx {', '.join(map(str, existing))}"
        raise InputError(
            f"expected surface files of --idx {idx_min} to {idx_max} for the prefix {prefix}, "
            f"found none{others}; compute them with plot_surface.py --idx N"
        )
    return chosen


def first_with_prefix(prefix):
    """A 1-D surface file whose name begins with `prefix`, '' where there is none.

    Raises InputError where the surfaces of that prefix are on several grids.
    """
    folder, stem = os.path.split(prefix)
    stems = {stem, short_stem(stem)}
    names = [name for name in surface_names_in(folder) if name.stem in stems and name.is_1d]
    if not names:
        return ""

    grids = sorted({name.grid + name.options for name in names})
    if len(grids) > 1:
        raise InputError(
            f"expected the repeats of one grid, {prefix} has {', '.join(grids)}; "
            "give one of the surface files as --prefix"
        )
    return os.path.join(folder, str(names[0]))


@style()
def plot_1d_loss_err_repeat(
    prefix, idx_min=1, idx_max=10, xmin=None, xmax=None, loss_max=None, log=False, show=False,
    fmt="pdf", output="", title=None,
):  # fmt: skip
    """Write median and quartile band of loss (left) and error (right) over repeated directions.

    Written to `output`, or to PREFIX + '_1d_loss_err_repeat.pdf'; returns the path in a list.
    Points where a repeat has no finite value are hatched.
    """
    files = repeat_files(prefix, idx_min, idx_max)
    all_curves = [read_curves(path) for path in files.values()]
    first = all_curves[0]
    for curves in all_curves:
        if len(curves.x) != len(first.x) or not np.allclose(curves.x, first.x):
            raise InputError(
                f"expected the points of {first.path} in {curves.path} too; "
                "choose repeats of one grid "
                "with --idx_min and --idx_max"
            )
        if not curves.of_kind("loss"):
            raise InputError(f"expected a loss in {curves.path}, found {sorted(curves.values)}")
    check_loss_max(loss_max, log)
    limits = x_limits(all_curves, xmin, xmax)

    figure = repeat_figure(all_curves, limits, loss_max, log, title, show)
    path = output or picture_file_name(prefix, "1d_loss_err_repeat", fmt)
    return write_figures({path: figure}, show)


def repeat_figure(all_curves, limits, loss_max, log, title, show):
    """Medians and quartile bands over the repeats: loss on the left axis, error on the right."""
    first = all_curves[0]
    figure = new_figure(COLUMN, HEIGHT, show)
    left = figure.add_subplot()
    sides = {"loss": (left, "loss", LOSS_COLOUR)}
    if any(curves.of_kind("err") for curves in all_curves):
        right = left.twinx()
        right.set_ylim(0, 100)
        right.set_ylabel("error (%)", color=ACCURACY_COLOUR)
        sides["err"] = (right, "error", ACCURACY_COLOUR)

    handles, drawn, losses = [], [], []
    for kind, (ax, word, colour) in sides.items():
        for split, line_style in SPLITS.items():
            name = f"{split}_{kind}"
            arrays = [curves.values[name] for curves in all_curves if name in curves.values]
            if not arrays:
                continue
            low, median, high = quantiles(arrays)
            band = draw_quartile_band(ax, first.x, low, high, colour)
            look = {"color": colour, "linestyle": line_style, "label": f"{split} {word}"}
            handles.append(draw_curve(ax, first.x, median, **look))
            drawn += arrays
            if kind == "loss":
                losses += [median, high]
    limit_loss(left, losses, loss_max, log)
    left.set_ylabel("loss", color=LOSS_COLOUR)
    set_x_axis(left, limits)

    kinds = hatch_gaps(left, first.x, drawn)
    title = title_of_curves(title, first.model, f"median of {len(all_curves)} directions", drawn)
    set_title_and_legend(figure, left, [*handles, band], kinds, title)
    return figure
