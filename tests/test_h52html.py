"""The interactive page: its text without a browser, its behaviour in a real headless Chromium."""

import base64
import io
import json
import os
import re
import shutil
import urllib.parse
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.interpolate import RegularGridInterpolator

import h52html
from losslandscape.errors import InputError
from losslandscape.files.layouts import Grid, Surface, read_surface, write_projection, write_surface
from tests import browser
from tests.conftest import GOLDEN, run

SQUARE = ("model_6.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
          "_[-1.0,1.0,5]x[-1.0,1.0,5].h5")
LONG = "model_6.t7_weights_xignore=biasbn_xnorm=layer_yignore=biasbn_ynorm=layer.h5_[-1.0,1.0,3]x[-0.5,0.5,5].h5"
CURVE = "model_6.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,7].h5"
HOSTILE = """</script><script>hacked = 1</script><img src=x onerror="hacked = 2"> "q" 'a' & ö 山 @@DATA@@"""


def surface(f, x="-1:1:9", y="-1:1:7", gaps=()):
    """All four arrays, and one with a hostile name, from a loss f(x, y); `gaps` are (row, column) not computed."""
    grid = Grid.parse(x, y)
    loss = np.asarray(f(*np.meshgrid(grid.x, grid.y)), float)
    values = {"train_loss": loss, "test_loss": loss + 1, "train_acc": 100 * np.exp(-np.abs(loss)),
              "test_acc": 90 * np.exp(-np.abs(loss)), "<b onclick=x>": -loss}
    computed = np.ones(grid.shape, bool)
    for index in gaps:
        computed[index] = False
    return Surface(grid, values, dict.fromkeys(values, computed))


def bowl(x, y):
    return 0.5 + x**2 + 2 * y**2


def wall(x, y):
    return np.where(x > 0.9, np.inf, np.where((x < -0.9) & (y < -0.9), np.nan, 100 * bowl(x, y)))


def command(*args, **environment):
    return run("h52html.py", *args, env=environment or None)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.title, self.inside = [], [], "", None
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


# ---------------------------------------------------------------- the file


def test_page_holds_the_values_of_the_surface_as_float32(tmp_path):
    shutil.copy(GOLDEN / LONG, tmp_path)
    result = command("--surf_file", tmp_path / LONG)
    assert result.returncode == 0 and result.stdout == f"{tmp_path / LONG}.html\n"
    held = json.loads(Elements((tmp_path / f"{LONG}.html").read_text("utf-8")).scripts[0])
    found = read_surface(GOLDEN / LONG)
    (panel,) = held["panels"]
    assert panel["label"] == LONG and panel["x"] == found.grid.x.tolist() and panel["y"] == found.grid.y.tolist()
    for name in ("train_loss", "train_acc"):
        values = np.frombuffer(base64.b64decode(panel["values"][name]), "<f4").reshape(found.grid.shape)
        np.testing.assert_array_equal(values, found.values[name].astype(np.float32))


def test_two_full_size_surfaces_stay_below_six_megabytes():
    rough = surface(lambda x, y: np.exp(5 * np.sin(30 * x) * np.cos(20 * y)), "-1:1:51", "-1:1:51")
    text = h52html.page([h52html.panel(rough, "a"), h52html.panel(rough, "b")])
    assert len(text.encode()) < 6e6


def test_page_refers_to_nothing_outside_itself():
    found = Elements(h52html.page([h52html.panel(surface(bowl), HOSTILE, HOSTILE)]))
    assert not [attributes for _, attributes in found.tags if {"src", "href", "action"} & set(attributes)]
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy and "connect-src" not in policy


def test_hostile_labels_stay_text():
    found = Elements(h52html.page([h52html.panel(surface(bowl), HOSTILE, HOSTILE)]))
    assert found.title == HOSTILE
    assert json.loads(found.scripts[0])["panels"][0]["label"] == HOSTILE
    assert [tag for tag, _ in found.tags].count("script") == 3 and "img" not in [tag for tag, _ in found.tags]


def test_gaps_are_nan_and_infinity_stays():
    panel = h52html.panel(surface(wall, gaps=[(3, 4)]), "w")
    values = np.frombuffer(base64.b64decode(panel["values"]["train_loss"]), "<f4").reshape(7, 9)
    assert np.isnan(values[3, 4]) and np.isnan(values[0, 0]) and (values[:, -1] == np.inf).all()
    assert np.isfinite(values[1:, :-1]).sum() == 6 * 8 - 1


@pytest.mark.parametrize("flags, words", [
    ((CURVE,), "2-D surface"),
    (("nothing.h5",), "nothing.h5"),
    ((SQUARE, "--surf_name", "test_loss"), "train_loss"),
    ((SQUARE, SQUARE, "--labels", "one"), "as many --labels"),
    ((SQUARE, "--proj_file", SQUARE), "proj_xcoord"),
    ((SQUARE, "--proj_file", "none", "none"), "as many --proj_file"),
    ((SQUARE, "--output", "/nowhere/at/all.html"), "can't write"),
])
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, flags, words):
    for name in (CURVE, SQUARE):
        shutil.copy(GOLDEN / name, tmp_path)
    before = sorted(os.listdir(tmp_path))
    result = command("-f", *(tmp_path / flag if flag in (CURVE, SQUARE) else flag for flag in flags))
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and words in result.stderr
    assert sorted(os.listdir(tmp_path)) == before


def test_error_can_be_what_the_page_shows_first():
    text = h52html.page([h52html.panel(surface(bowl), "a")], "test_err")
    assert json.loads(Elements(text).scripts[0])["name"] == "test_err"
    with pytest.raises(InputError, match="test_err"):
        h52html.page([h52html.panel(read_surface(GOLDEN / SQUARE), "a")], "test_err")


def test_page_shows_first_what_the_file_has(tmp_path):
    found = surface(bowl)
    for name in ("test_loss", "train_mae", "max_eig"):
        write_surface(tmp_path / "s.h5", Surface(found.grid, {name: found.values["train_loss"]},
                                                 {name: found.computed["train_loss"]}))
        h52html.main(["-f", str(tmp_path / "s.h5")])
        assert json.loads(Elements((tmp_path / "s.h5.html").read_text()).scripts[0])["name"] == name


def test_surfaces_that_no_browser_could_hold_are_refused(monkeypatch, tmp_path):
    write_surface(tmp_path / "s.h5", surface(bowl))
    monkeypatch.setattr(h52html, "MAX_VALUES", 5 * 63 - 1)
    with pytest.raises(InputError, match="at most"):
        h52html.main(["-f", str(tmp_path / "s.h5")])


def test_missing_plotly_is_named_in_one_line(tmp_path):
    (tmp_path / "plotly.py").write_text("raise ImportError('not installed')")
    shutil.copy(GOLDEN / SQUARE, tmp_path)
    result = command("-f", tmp_path / SQUARE, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and "pip install plotly" in result.stderr


# ---------------------------------------------------------------- in the browser


WALK = {"proj_xcoord": np.array([1.5, 0.8, 0.3, -0.1, 0.0]), "proj_ycoord": np.array([0.5, 0.5, -0.4, 0.2, 0.0]),
        "epochs": np.array([0, 1, 10, 20, 30])}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of two surfaces of different shape, one with gaps and a path, made by the command; hostile names."""
    folder = tmp_path_factory.mktemp("page")
    name = HOSTILE.replace("/", "_")  # all that a file name may hold
    write_surface(folder / name, surface(bowl))
    write_surface(folder / "b.h5", surface(wall, "-1:1:9", "-1:1:7", gaps=[(3, 4)]))
    write_projection(folder / "p.h5", WALK, {})
    result = command("-f", folder / name, folder / "b.h5", "--labels", HOSTILE, "second",
                     "--proj_file", "none", folder / "p.h5", "--output", folder / "page.html")
    assert result.returncode == 0, result.stderr
    return folder / "page.html"


@pytest.fixture(scope="module")
def opened(page_file):
    """The page as it opens, in a browser: (driver, console errors, addresses asked for, on opening)."""
    if browser.missing():
        pytest.skip(browser.missing())
    driver = browser.start()
    try:
        browser.show(driver, page_file)
        driver.execute_script("window.initial = {...state}")
        yield driver, browser.errors(driver), browser.requests(driver)
    finally:
        driver.quit()


@pytest.fixture
def shown(opened):
    """The driver, with the page as it was when it opened; it is drawn again, not loaded again, and only if need be."""
    driver = opened[0]
    driver.execute_script("""
        if (JSON.stringify(state) === JSON.stringify(initial) && !data.panels.some(panel => panel.camera)) return;
        Object.assign(state, initial);
        for (const panel of data.panels) delete panel.camera;
        for (const id of ["clip", "epoch"]) document.getElementById(id).value = 1e6;
        document.getElementById("floor").checked = true;
        draw();""")
    browser.drawn(driver)
    return driver


def heights(driver, panel):
    """What is drawn: (ny, nx), NaN in gaps."""
    z = driver.execute_script(f"return document.querySelectorAll('.plot')[{panel}].data[0].z")
    return np.array([[np.nan if v is None else v for v in row] for row in z])


def press(driver, group, value):
    driver.execute_script(f"document.querySelector('#{group} button[data-value=\"{value}\"]').click()")
    browser.drawn(driver)


def slide(driver, name, value):
    driver.execute_script(f"const s = document.getElementById('{name}'); s.value = {value};"
                          "s.dispatchEvent(new Event('input'))")
    browser.drawn(driver)


def camera(driver, panel):
    found = driver.execute_script(
        f"return document.querySelectorAll('.plot')[{panel}]._fullLayout.scene._scene.getCamera()")
    return np.array([found[part][axis] for part in ("eye", "center", "up") for axis in "xyz"])


def eventually(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30).until(lambda _: condition())


def test_page_opens_without_a_console_error_or_a_request_and_draws_both_surfaces(opened, shown, page_file):
    from selenium.webdriver.common.by import By

    _, errors, addresses = opened
    assert errors == []
    assert [urllib.parse.unquote(url) for url in addresses if not url.startswith(("data:", "blob:"))] == [
        urllib.parse.unquote(page_file.as_uri())]
    plots = shown.find_elements(By.CLASS_NAME, "plot")
    assert len(plots) == 2
    for plot in plots:
        pixels = np.asarray(Image.open(io.BytesIO(plot.screenshot_as_png)).convert("RGB"), float)
        assert pixels.std() > 15 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
        assert (np.ptp(pixels, axis=2) > 60).mean() > 0.05  # a coloured surface, not only axes


def test_names_from_files_are_shown_as_text_and_never_run(shown):
    from selenium.webdriver.common.by import By

    assert shown.title == HOSTILE + " | second"
    assert shown.find_element(By.TAG_NAME, "h2").get_attribute("textContent") == HOSTILE
    press(shown, "quantity", "<b onclick=x>")
    np.testing.assert_allclose(heights(shown, 0), -bowl(*np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7))),
                               rtol=1e-6)
    assert shown.execute_script("return window.hacked") is None
    assert shown.find_elements(By.CSS_SELECTOR, "img[src=x], b[onclick]") == []


def test_nothing_on_the_page_offers_to_send_the_data_away(shown):
    titles = shown.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert len(titles) == 10 and not [title for title in titles if re.search("share|cloud|edit|upload", title, re.I)]


@pytest.mark.parametrize("turned", [0, 1])
def test_rotating_one_panel_rotates_the_other(shown, turned):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    before = camera(shown, 0)
    np.testing.assert_allclose(camera(shown, 1), before)
    plot = shown.find_elements(By.CLASS_NAME, "plot")[turned]
    picture = shown.find_elements(By.CLASS_NAME, "plot")[1 - turned].screenshot_as_png
    ActionChains(shown).move_to_element(plot).click_and_hold().move_by_offset(90, 30).move_by_offset(40, 10).release(
    ).perform()
    eventually(shown, lambda: np.abs(camera(shown, turned) - before).max() > 0.1)
    eventually(shown, lambda: shown.execute_script("return rested >= REST"))  # it glides on after the button is up
    np.testing.assert_allclose(camera(shown, 0), camera(shown, 1), atol=1e-6)
    assert np.abs(camera(shown, 1 - turned) - before).max() > 0.1
    eventually(shown, lambda: shown.find_elements(By.CLASS_NAME, "plot")[1 - turned].screenshot_as_png != picture)
    after = camera(shown, 0)
    press(shown, "split", "test")
    np.testing.assert_allclose([camera(shown, 0), camera(shown, 1)], [after, after], atol=1e-6)  # a switch keeps it


def test_switches_change_the_values_that_are_drawn(shown):
    loss = bowl(*np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7)))
    shown_first = shown.execute_script("return [state.quantity, state.split, state.log]")
    assert shown_first == ["loss", "train", True]  # the wall spans three decades
    np.testing.assert_allclose(heights(shown, 0), np.log10(loss), atol=1e-6)
    press(shown, "scaling", "linear")
    np.testing.assert_allclose(heights(shown, 0), loss, rtol=1e-6)
    press(shown, "split", "test")
    np.testing.assert_allclose(heights(shown, 0), loss + 1, rtol=1e-6)
    press(shown, "quantity", "acc")
    np.testing.assert_allclose(heights(shown, 0), 90 * np.exp(-loss), rtol=1e-5)
    press(shown, "quantity", "err")
    np.testing.assert_allclose(heights(shown, 0), 100 - 90 * np.exp(-loss), rtol=1e-5)
    assert shown.execute_script("return [...document.querySelectorAll('[aria-pressed=true]')].map(b => b.textContent)"
                                ) == ["error", "test", "linear"]


def test_points_without_a_finite_value_are_gaps_and_clipping_cuts_at_the_shown_height(shown):
    press(shown, "scaling", "linear")
    x, y = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 7))
    expected = wall(x, y)
    expected[3, 4] = np.nan
    np.testing.assert_allclose(heights(shown, 1), np.where(np.isfinite(expected), expected, np.nan), rtol=1e-6)
    low, high = 0.5, np.max(expected[np.isfinite(expected)])
    slide(shown, "clip", 500)
    top = low + 0.5 * (high - low)
    np.testing.assert_allclose(heights(shown, 1), np.minimum(expected, top), rtol=1e-6)  # +inf is at the top now
    said = shown.execute_script("return document.getElementById('clipped').textContent")
    assert float(said.removeprefix("at ")) == pytest.approx(top, rel=1e-3)
    slide(shown, "clip", 1000)
    assert np.isnan(heights(shown, 1)[:, -1]).all()


def test_all_panels_share_one_colour_scale(shown):
    both = np.concatenate([heights(shown, 0).ravel(), heights(shown, 1).ravel()])
    limits = shown.execute_script("return [...document.querySelectorAll('.plot')].map(p => "
                                  "[p.data[0].cmin, p.data[0].cmax, p.layout.scene.zaxis.range])")
    assert limits[0] == limits[1]
    assert limits[0][:2] == pytest.approx([np.nanmin(both), np.nanmax(both)], rel=1e-6)


def test_contours_on_the_floor_are_level_lines_and_can_be_switched_off(shown):
    from selenium.webdriver.common.by import By

    lines = shown.execute_script("return [...document.querySelectorAll('.plot')].map("
                                 "p => p.data.find(trace => trace.meta === 'floor'))")
    floor = shown.execute_script("return view().floor")
    for panel, line in enumerate(lines):
        z = heights(shown, panel)
        (ground,) = {v for v in line["z"] if v is not None}
        assert floor < ground < np.nanmin(z)
        points = [p for p in zip(line["x"], line["y"], line["line"]["color"], strict=True) if p[0] is not None]
        on_grid_line = 0
        for x, y, level in points:  # on a line of the grid the surface is linear
            column, row = round(4 * x + 4), round(3 * y + 3)
            if abs(4 * x + 4 - column) < 1e-9:
                assert np.interp(y, np.linspace(-1, 1, 7), z[:, column]) == pytest.approx(level, rel=1e-4)
                on_grid_line += 1
            elif abs(3 * y + 3 - row) < 1e-9:
                assert np.interp(x, np.linspace(-1, 1, 9), z[row]) == pytest.approx(level, rel=1e-4)
                on_grid_line += 1
        assert on_grid_line > 20
    gap = np.isnan(heights(shown, 1))
    assert gap[3, 4]
    assert not [1 for x, y in zip(lines[1]["x"], lines[1]["y"], strict=True)
                if x is not None and abs(x) < 0.25 - 1e-9 and abs(y) < 1 / 3 - 1e-9]  # no line in the cells of the gap

    shown.find_element(By.ID, "floor").click()
    browser.drawn(shown)
    assert not shown.execute_script("return [...document.querySelectorAll('.plot')].some("
                                    "p => p.data.some(trace => trace.meta === 'floor'))")


def test_path_lies_on_the_surface_and_follows_the_epoch_slider(shown):
    press(shown, "quantity", "acc")  # finite everywhere but in the gaps

    def path(trace):
        return shown.execute_script(f"return document.querySelectorAll('.plot')[1].data[{trace}]")

    assert shown.execute_script("return document.querySelectorAll('.plot')[0].data.length") == 2  # no path in this one
    assert shown.execute_script("return document.getElementById('reached').textContent") == "epoch 30"
    slide(shown, "epoch", 3)
    assert shown.execute_script("return document.getElementById('reached').textContent") == "epoch 20"
    line, floor = path(2), path(3)
    np.testing.assert_allclose(line["x"], WALK["proj_xcoord"][:4], rtol=1e-6)
    np.testing.assert_allclose(line["y"], WALK["proj_ycoord"][:4], rtol=1e-6)
    assert line["text"] == ["epoch 0", "epoch 1", "epoch 10", "epoch 20"]
    z = heights(shown, 1)
    on = RegularGridInterpolator((np.linspace(-1, 1, 7), np.linspace(-1, 1, 9)), z)
    span = shown.execute_script("return view().span")
    assert line["z"][0] is None and floor["z"][0] is None  # (1.5, 0.5) lies outside
    for k in (1, 2, 3):
        height = on([WALK["proj_ycoord"][k], WALK["proj_xcoord"][k]])[0]
        if np.isnan(height):
            assert line["z"][k] is None
        else:
            assert line["z"][k] == pytest.approx(height + 0.015 * span, rel=1e-5, abs=1e-5)
        assert floor["z"][k] is not None
    assert "1 of 5 checkpoints lie outside" in shown.execute_script(
        "return document.querySelectorAll('.panel p')[1].textContent")


def test_hovering_tells_coordinates_and_value(shown):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    plot = shown.find_elements(By.CLASS_NAME, "plot")[0]

    def label():
        ActionChains(shown).move_to_element(plot).move_by_offset(np.random.randint(-30, 30), 0).perform()
        return "".join(e.text for e in plot.find_elements(By.CSS_SELECTOR, ".hovertext"))

    eventually(shown, lambda: re.search(r"x [-\d.]+, y [-\d.]+\s*train loss [\d.]+", label()))


def test_metrics_and_statistics_of_repeats_have_buttons_of_their_own(opened, tmp_path):
    driver = opened[0]
    loss = surface(bowl).values["train_loss"]
    names = ("train_loss", "train_loss_low", "train_loss_iqr", "train_top5_acc", "train_my_err")
    write_surface(tmp_path / "s.h5", Surface(surface(bowl).grid, dict.fromkeys(names, loss),
                                             dict.fromkeys(names, np.ones(loss.shape, bool))))
    h52html.main(["-f", str(tmp_path / "s.h5")])
    browser.show(driver, tmp_path / "s.h5.html")
    buttons = driver.execute_script("return [...document.querySelectorAll('#quantity button')].map(b => b.textContent)")
    assert buttons == ["loss", "my err", "top5 acc", "loss, interquartile range", "loss, lower quartile"]  # no error
    press(driver, "quantity", "top5_acc")
    assert driver.execute_script("return title() + unit()") == "train top5 acc"
    press(driver, "quantity", "my_err")
    np.testing.assert_allclose(heights(driver, 0), loss, rtol=1e-6)
    assert browser.errors(driver) == []


def test_page_fits_a_phone(opened, page_file):
    driver = opened[0]
    browser.as_phone(driver, True)
    try:
        browser.show(driver, page_file)
        width, inner, boxes, tops = driver.execute_script(
            "const box = query => [...document.querySelectorAll(query)].map(e => e.getBoundingClientRect());"
            "return [document.documentElement.scrollWidth, window.innerWidth,"
            "box('.plot, #controls, #scale, h2, button, input').filter(b => b.width).map(b => [b.left, b.right]),"
            "box('.plot').map(b => b.top)]")
        assert inner == 390 and width <= inner  # nothing to scroll sideways
        assert all(left >= 0 and right <= inner for left, right in boxes)
        assert tops[1] > tops[0] + 250  # one above the other
        assert browser.errors(driver) == []
    finally:
        browser.as_phone(driver, False)
