"""Surfaces as one interactive page: page.html, filled with the surfaces, Plotly and page.js.

The page is one file that asks for nothing: names from files stand in it as text, never as markup or
code.
"""

import base64
import html
import importlib.resources
import json
import os
import re
from dataclasses import dataclass

import numpy as np

from losslandscape.errors import InputError
from losslandscape.files.grid import ERRORS, Surface
from losslandscape.pictures.extremes import (
    FLOAT32_RESOLUTION,
    drawable_numbers,
    refuse_undrawable_axes,
)

# float32 values in one page: about 21 MB as base64; a browser struggles beyond
MAX_VALUES = 4_000_000
MAX_WORDS = 4  # quantities that a headline names

QUANTITY_WORDS = {  # train_loss and test_loss are the quantity loss
    "loss": "loss",
    "acc": "accuracy",
    "err": "error",
    "max_eig": "largest eigenvalue",
    "min_eig": "smallest eigenvalue",
}
STATISTIC_WORDS = {  # of repeats
    "low": "lower quartile",
    "high": "upper quartile",
    "iqr": "interquartile range",
    "se": "standard error",
}


@dataclass(frozen=True)
class PagePanel:
    """One 2-D surface of a page, checked.

    label: its heading, chosen by the page if empty; path: its file; projection: {proj_xcoord: (n,),
    proj_ycoord: (n,)} of an optimizer's path, with the `epochs` of the n checkpoints if known
    (and the `unit` that these count: 'epoch' or 'step').
    """

    surface: Surface
    label: str = ""
    path: str = ""
    projection: dict | None = None

    def __post_init__(self):
        grid = self.surface.grid
        place = self.path or self.label or "the surface"
        if grid.y is None:
            raise InputError(f"expected a 2-D surface, got a 1-D one in {place}; "
                             "draw it with plot_1D.py")
        if min(grid.shape) < 2:
            raise InputError(f"expected at least 2 points per axis in {place}, got {grid}")
        refuse_undrawable_axes(self.surface, place, FLOAT32_RESOLUTION)
        if not self.surface.values:
            raise InputError(f"expected values such as train_loss in {place}, found none; "
                             "compute them first")

    @property
    def file(self):
        return os.path.basename(self.path)

    def recorded(self, key):
        """What the provenance says under `key`, in one line; '' where it says nothing."""
        value = self.surface.provenance.get(key)
        if isinstance(value, str):
            return one_line(value)
        return ""


def html_page(panels, name=None):
    """The page (str) of a list of `PagePanel`, showing `name` first.

    Raises InputError for a name that no surface has, and for more values than a browser can hold.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(f"this needs Plotly, which can't be imported ({error}); "
                         "pip install plotly") from None

    _refuse_too_many_values(panels)
    _refuse_nothing_finite(panels)
    name = name or panels[0].surface.main_name
    _refuse_unknown_name(panels, name)

    labels = panel_labels(panels)
    data = {
        "name": name,
        "panels": [_panel_data(panel, label) for panel, label in zip(panels, labels, strict=True)],
        "quantityWords": QUANTITY_WORDS,
        "statisticWords": STATISTIC_WORDS,
    }
    parts = {
        "TITLE": html.escape(" | ".join(labels)),
        "HEADLINE": html.escape(page_headline(panels)),
        "DATA": json_for_script(data),
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": _template("page.js"),
    }
    # in one pass: a label may look like a mark
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _template("page.html"))


def _template(name):
    folder = importlib.resources.files("losslandscape.pictures")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _refuse_too_many_values(panels):
    count = sum(panel.surface.grid.size * len(panel.surface.values) for panel in panels)
    if count > MAX_VALUES:
        raise InputError(f"expected at most {MAX_VALUES} values in one page, got {count}; "
                         "give fewer surfaces")


def _refuse_nothing_finite(panels):
    for panel in panels:
        surface = panel.surface
        if any(np.isfinite(surface.get(name).compressed()).any() for name in surface.values):
            return
    names = ", ".join(panel.path or panel.label or "the surface" for panel in panels)
    raise InputError(f"expected a finite value in {names}, found none; compute more of it first")


def _refuse_unknown_name(panels, name):
    """The page can show the arrays of all surfaces, and the errors that it makes of accuracies."""
    names = {array for panel in panels for array in panel.surface.values}
    names |= {error for error, accuracy in ERRORS.items() if accuracy in names}
    if name not in names:
        raise InputError(f"expected one of {', '.join(sorted(names))} as the name of a surface, "
                         f"got {name!r}")


# ---------------------------------------------------------------- words


def one_line(text):
    """The text without line breaks and control characters: each run of these becomes one space."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def page_headline(panels):
    """Networks, data and what was computed: 'resnet56 on cifar10: loss and accuracy'.

    Where the files don't say (those of the original code), what was computed stands alone.
    """
    models = _distinct(panel.recorded("model") for panel in panels)
    datasets = _distinct(panel.recorded("dataset") for panel in panels)
    words = computed_words({name for panel in panels for name in panel.surface.values})

    subject = enumeration(models)
    if models and datasets:
        subject += " on "
    subject += enumeration(datasets)
    if not subject:
        return words[0].upper() + words[1:]
    return f"{subject}: {words}"


def _distinct(texts):
    """The texts that aren't empty, each once, in their order."""
    return [text for text in dict.fromkeys(texts) if text]


def enumeration(words):
    """'a', 'a and b', 'a, b and c'; '' of no words."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def computed_words(names):
    """'loss and accuracy' of train_loss, test_loss, train_acc and their statistics over repeats."""
    quantities = set()
    for name in names:
        if name.endswith("_se") or name.endswith("samples"):
            continue  # how well the others are known
        quantity = re.sub(r"^(train|test)_", "", name)
        quantities.add(re.sub(r"_(low|high|iqr)$", "", quantity))

    # those that have words of their own first, in the order of these
    known = [words for quantity, words in QUANTITY_WORDS.items() if quantity in quantities]
    unknown = sorted(quantities - QUANTITY_WORDS.keys())
    others = [one_line(quantity.replace("_", " ")) for quantity in unknown]
    words = known + others
    if len(words) > MAX_WORDS:
        words = [*words[: MAX_WORDS - 1], "others"]
    return enumeration(words)


def panel_labels(panels):
    """The heading of each panel: the user's label, or what tells the surfaces apart.

    One surface has the headline of the page; several the names of their networks if these differ,
    or else those of their data sets, or else of their files.
    """
    defaults = [panel.file for panel in panels]
    if len(panels) == 1 and panels[0].recorded("model"):
        defaults = [page_headline(panels)]
    elif len(panels) > 1:
        for key in ("model", "dataset"):
            names = [panel.recorded(key) for panel in panels]
            if "" not in names and len(set(names)) == len(names):
                defaults = names
                break
    labels = [panel.label or default for panel, default in zip(panels, defaults, strict=True)]
    return [one_line(label) for label in labels]


# ---------------------------------------------------------------- data


def json_for_script(value):
    """JSON that can stand inside a <script> element whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def pack_floats(array):
    """Base64 of an array as little-endian float32."""
    with np.errstate(over="ignore"):
        return base64.b64encode(np.asarray(array).astype("<f4").tobytes()).decode()


def pack_values(masked):
    """{low, scale, floats}: values are low + scale * floats, NaN where they are masked.

    Small differences of large values, and values of any size, keep the seven digits of a float32.
    """
    values = np.ma.filled(masked.astype(float), np.nan)
    finite = values[np.isfinite(values)]
    low, scale = 0.0, 1.0
    if len(finite) > 0:
        low = float(finite.min())
        _, exponent = np.frexp(finite.max() - low)  # a power of two scales without rounding
        scale = float(2.0**exponent)
    return {"low": low, "scale": scale, "floats": pack_floats((values - low) / scale)}


def _panel_data(panel, label):
    """What page.js reads of one panel: plain values, ready for JSON."""
    surface = panel.surface
    values = {}
    for name in sorted(surface.values):
        values[name] = pack_values(drawable_numbers(surface.get(name), one_line(name)))
    return {
        "label": label,
        "file": one_line(panel.file),
        "path": one_line(panel.path),
        "x": surface.grid.x.tolist(),
        "y": surface.grid.y.tolist(),
        "values": values,  # (ny, nx), row = y
        "walk": _walk_data(panel.projection),
    }


def _walk_data(projection):
    """The optimizer's path, or None; `epochs` is None where not each checkpoint has one."""
    if projection is None:
        return None

    count = len(projection["proj_xcoord"])
    epochs = None
    for name in ("epochs", "epoch"):
        numbers = np.asarray(projection.get(name, ()))
        if epochs is None and numbers.shape == (count,) and np.isfinite(numbers).all():
            epochs = numbers.tolist()
    return {
        "x": pack_floats(projection["proj_xcoord"]),
        "y": pack_floats(projection["proj_ycoord"]),
        "epochs": epochs,
        "unit": projection.get("unit", "epoch"),
    }
