"""The interactive page as text; test_page_in_browser.py opens it."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from losslandscape.errors import InputError
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import read_surface
from losslandscape.pictures import page
from losslandscape.pictures.overwrite import OUTPUT_KINDS
from losslandscape.pictures.page import PagePanel, computed_words, html_page, page_headline, panel_labels
from tests.conftest import GOLDEN, ROOT
from tests.made_surfaces import HOSTILE, bowl, bowl_named, surface_of, surface_with_all, wall

SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
PICTURES = ROOT / "losslandscape" / "pictures"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of title, h1 and each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.title, self.headline, self.inside = [], [], "", "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts[-1] += text
        elif self.inside == "title":
            self.title += text
        elif self.inside == "h1":
            self.headline += text

    @property
    def data(self):
        return json.loads(self.scripts[0])


def unpacked(packed):
    """The values as page.js computes them."""
    floats = np.frombuffer(base64.b64decode(packed["floats"]), "<f4").astype(float)
    return packed["low"] + packed["scale"] * floats


def elements_of(*panels, name=None):
    return Elements(html_page(list(panels), name))


# ---------------------------------------------------------------- the source files


def test_script_has_correct_syntax():
    if not shutil.which("node"):
        pytest.skip("node is not installed (apt install nodejs)")
    result = subprocess.run(["node", "--check", PICTURES / "page.js"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_script_can_stand_inside_a_script_element():
    script = (PICTURES / "page.js").read_text("utf-8")
    assert not re.search(r"</script|<!--", script, re.I)
    assert "@@" not in script


def test_page_has_a_mark_for_each_part_and_no_other():
    marks = re.findall(r"@@(\w+)@@", (PICTURES / "page.html").read_text("utf-8"))
    assert sorted(marks) == ["DATA", "HEADLINE", "PLOTLY", "SCRIPT", "TITLE"]


def test_every_element_that_the_script_asks_for_is_in_the_page():
    script = (PICTURES / "page.js").read_text("utf-8")
    asked_for = set(re.findall(r'(?:element|fillButtons)\("(\w+)"', script))
    ids = {attributes.get("id") for _, attributes in elements_of(PagePanel(surface_with_all(bowl))).tags}
    assert asked_for <= ids


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("low, span", [(0, 1), (0.3, 1e9), (1e8, 10), (-1e6, 1e-3), (-3, 6),
                                       (1e140, 1e141), (0, 1e-140), (-1e150, 2e150)])
def test_packed_values_keep_seven_digits_of_their_range(low, span):
    values = np.ma.masked_array(low + span * np.linspace(0, 1, 50), mask=np.arange(50) == 7)
    got = unpacked(page.pack_values(values))
    assert np.isnan(got[7])
    np.testing.assert_allclose(np.delete(got, 7), values.compressed(), rtol=1e-15, atol=1e-7 * span)
    json.dumps({key: value for key, value in page.pack_values(values).items()}, allow_nan=False)


def test_a_page_without_a_finite_value_is_refused():
    nothing = surface_of(lambda x, y: np.nan * x)
    with pytest.raises(InputError, match="finite value in S.h5, found none"):
        html_page([PagePanel(nothing, "", "S.h5")])
    assert html_page([PagePanel(nothing), PagePanel(surface_of(bowl))])


# ---------------------------------------------------------------- the page as text


def test_two_full_size_surfaces_stay_below_six_megabytes():
    rough = surface_with_all(lambda x, y: np.exp(5 * np.sin(30 * x) * np.cos(20 * y)), "-1:1:51", "-1:1:51")
    text = html_page([PagePanel(rough, "a"), PagePanel(rough, "b")])
    assert len(text.encode()) < 6e6


def test_page_refers_to_nothing_outside_itself():
    elements = elements_of(PagePanel(surface_with_all(bowl), HOSTILE, HOSTILE))
    assert not [attributes for _, attributes in elements.tags if {"src", "href", "action"} & set(attributes)]
    policy = next(a["content"] for _, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy and "connect-src" not in policy


def test_hostile_labels_and_provenance_stay_text():
    surface = surface_with_all(bowl, model=HOSTILE, dataset=HOSTILE)
    elements = elements_of(PagePanel(surface, HOSTILE, HOSTILE))
    assert elements.title == HOSTILE
    assert elements.headline.startswith(f"{HOSTILE} on {HOSTILE}: loss")
    assert elements.data["panels"][0]["label"] == HOSTILE
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("script") == 3 and "img" not in tags


def test_control_characters_and_line_breaks_become_spaces():
    untidy = "a\x00b\r\nc\x1b[31m\u2028d\x85e"
    surface = surface_with_all(bowl, model=untidy, dataset="x\ny")
    elements = elements_of(PagePanel(surface, untidy, f"folder/{untidy}"))
    tidy = "a b c [31m d e"
    assert elements.title == tidy
    assert elements.headline.startswith(f"{tidy} on x y: ")
    (panel,) = elements.data["panels"]
    assert (panel["label"], panel["file"], panel["path"]) == (tidy, tidy, f"folder/{tidy}")


def test_gaps_are_nan_and_infinity_stays():
    (panel,) = elements_of(PagePanel(surface_with_all(wall, gaps=[(3, 4)]), "w")).data["panels"]
    values = unpacked(panel["values"]["train_loss"]).reshape(7, 9)
    assert np.isnan(values[3, 4]) and np.isnan(values[0, 0])
    assert (values[:, -1] == np.inf).all()
    assert np.isfinite(values[1:, :-1]).sum() == 6 * 8 - 1


def test_error_can_be_what_the_page_shows_first():
    elements = elements_of(PagePanel(surface_with_all(bowl)), name="test_err")
    assert elements.data["name"] == "test_err"
    with pytest.raises(InputError, match="test_err"):
        html_page([PagePanel(read_surface(GOLDEN / SQUARE))], "test_err")


@pytest.mark.parametrize("name", ["test_loss", "train_mae", "max_eig"])
def test_page_shows_first_what_the_surface_has(name):
    assert elements_of(PagePanel(bowl_named(name))).data["name"] == name


def test_surfaces_that_no_browser_could_hold_are_refused(monkeypatch):
    monkeypatch.setattr(page, "MAX_VALUES", 5 * 63 - 1)
    with pytest.raises(InputError, match="at most"):
        html_page([PagePanel(surface_with_all(bowl))])


@pytest.mark.parametrize("coordinates", [[-1.0, np.nan, 1.0], [1.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, 1.0, np.inf]])
def test_coordinates_that_do_not_increase_are_refused(coordinates):
    with pytest.raises(InputError, match="increasing coordinates"):
        PagePanel(Surface(Grid(np.array(coordinates), np.array([0.0, 1.0]))))


@pytest.mark.parametrize("epochs", [[0, 1, np.nan], [0, 1, np.inf], [0, 1], [[0], [1], [2]]])
def test_epochs_that_do_not_number_the_checkpoints_are_left_out(epochs):
    projection = {"proj_xcoord": np.zeros(3), "proj_ycoord": np.zeros(3), "epochs": np.array(epochs)}
    (panel,) = elements_of(PagePanel(surface_with_all(bowl), projection=projection)).data["panels"]
    assert panel["walk"]["epochs"] is None


# ---------------------------------------------------------------- headline and labels


def panels_from(*runs):
    """A panel for each (model, data set); '' is not recorded."""
    panels = []
    for number, (model, dataset) in enumerate(runs):
        recorded = {key: value for key, value in (("model", model), ("dataset", dataset)) if value}
        panels.append(PagePanel(surface_with_all(bowl, **recorded), path=f"folder/{number}.h5"))
    return panels


def test_headline_says_network_data_set_and_what_was_computed():
    (panel,) = panels_from(("resnet56", "cifar10"))
    assert page_headline([panel]) == "resnet56 on cifar10: loss, accuracy and <b onclick=x>"
    assert panel_labels([panel]) == [page_headline([panel])]


def test_headline_of_several_surfaces_names_each_network_and_data_set_once():
    panels = panels_from(("resnet56", "cifar10"), ("resnet56_noshort", "cifar10"), ("resnet56", "cifar10"))
    assert page_headline(panels).startswith("resnet56 and resnet56_noshort on cifar10: ")


def test_headline_without_a_record_says_what_was_computed():
    panels = panels_from(("", ""))
    assert page_headline(panels) == "Loss, accuracy and <b onclick=x>"
    assert panel_labels(panels) == ["0.h5"]


def test_headline_takes_only_texts_from_the_record():
    panel = PagePanel(surface_with_all(bowl, model={"a": 1}, dataset=["b"]), path="s.h5")
    assert page_headline([panel]).startswith("Loss")
    assert panel_labels([panel]) == ["s.h5"]


@pytest.mark.parametrize("runs, labels", [
    ([("a", "x"), ("b", "x")], ["a", "b"]),
    ([("a", "x"), ("a", "y")], ["x", "y"]),
    ([("a", "x"), ("a", "x")], ["0.h5", "1.h5"]),
    ([("a", "x"), ("", "x")], ["0.h5", "1.h5"]),
])
def test_surfaces_are_labelled_with_what_tells_them_apart(runs, labels):
    assert panel_labels(panels_from(*runs)) == labels


@pytest.mark.parametrize("names, words", [
    (["train_loss"], "loss"),
    (["train_acc", "train_loss", "test_loss"], "loss and accuracy"),
    (["max_eig", "min_eig"], "largest eigenvalue and smallest eigenvalue"),
    (["train_loss", "train_loss_low", "train_loss_iqr"], "loss"),
    (["train_top5_acc"], "top5 acc"),
    ([f"own_{number}" for number in range(9)], "own 0, own 1, own 2 and others"),
])
def test_what_was_computed_is_said_in_words(names, words):
    assert computed_words(names) == words


# ---------------------------------------------------------------- recognizing pages


def test_pages_of_this_and_of_the_first_version_are_recognized():
    text = html_page([PagePanel(surface_with_all(bowl))])
    assert OUTPUT_KINDS["html"].may_be_replaced(text.encode(), chosen=True)
    first_version = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; form-action 'none'; base-uri 'none'">
<title>S.h5</title>"""
    assert OUTPUT_KINDS["html"].may_be_replaced(first_version.encode(), chosen=True)


@pytest.mark.parametrize("text", ["", "<!DOCTYPE html>\n<html><head><title>losslandscape</title>", "\x89HDF\r\n\x1a\n"])
def test_other_files_are_not_recognized_as_pages(text):
    assert not OUTPUT_KINDS["html"].may_be_replaced(text.encode("latin-1"), chosen=False)
