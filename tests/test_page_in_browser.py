"""The interactive page in a real headless Chromium: what it draws, and what its controls do."""

import io
import re
import urllib.parse

import numpy as np
import pytest
from PIL import Image
from scipy.interpolate import RegularGridInterpolator

import h52html
from losslandscape.files.grid import Grid, Surface
from losslandscape.files.layouts import write_projection, write_surface
from tests import browser
from tests.made_surfaces import HOSTILE, bowl, bowl_named, surface_with_all, wall

X, Y = np.linspace(-1, 1, 9), np.linspace(-1, 1, 7)
LOSS = bowl(*np.meshgrid(X, Y))  # of the first panel
WALL = wall(*np.meshgrid(X, Y))  # of the second
GAP = (3, 4)  # of the second: row, column
WALL[GAP] = np.nan

WALK = {"proj_xcoord": np.array([1.5, 0.8, 0.3, -0.1, 0.0]), "proj_ycoord": np.array([0.5, 0.5, -0.4, 0.2, 0.0]),
        "epochs": np.array([0, 1, 10, 20, 30])}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of two surfaces, the second with gaps and a path, made by the command; hostile names."""
    folder = tmp_path_factory.mktemp("page")
    first, second, path = folder / HOSTILE.replace("/", "_"), folder / "b.h5", folder / "p.h5"
    write_surface(first, surface_with_all(bowl, model=HOSTILE, dataset="digits"))
    write_surface(second, surface_with_all(wall, gaps=[GAP], model="vgg9", dataset="digits"))
    write_projection(path, WALK, {})
    output = folder / "page.html"
    h52html.main(["-f", str(first), str(second), "--labels", HOSTILE, "second",
                  "--proj_file", "none", str(path), "--output", str(output)])
    return output


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
        const unchanged = JSON.stringify(state) === JSON.stringify(initial);
        if (unchanged && !data.panels.some(panel => panel.camera)) return;
        Object.assign(state, initial);
        for (const panel of data.panels) delete panel.camera;
        for (const id of ["clip", "epoch"]) document.getElementById(id).value = 1e6;
        document.getElementById("floor").checked = true;
        draw();""")
    browser.wait_until_drawn(driver)
    return driver


# ---------------------------------------------------------------- asking the page


def of_plots(driver, expression):
    """A list of what a JavaScript expression says of each plot, `p`."""
    return driver.execute_script(f"return [...document.querySelectorAll('.plot')].map(p => {expression})")


def texts_of(driver, selector):
    return driver.execute_script(
        f"return [...document.querySelectorAll({selector!r})].map(element => element.textContent)")


def drawn_heights(driver, panel):
    """What is drawn: (ny, nx), NaN in gaps."""
    return np.array(of_plots(driver, "p.data[0].z")[panel], dtype=float)  # null becomes NaN


def camera(driver, panel):
    """The nine numbers of the camera of a panel."""
    parts = of_plots(driver, "p._fullLayout.scene._scene.getCamera()")[panel]
    return np.array([[parts[part][axis] for axis in "xyz"] for part in ("eye", "center", "up")])


def press(driver, group, value):
    driver.execute_script(f"document.querySelector('#{group} button[data-value=\"{value}\"]').click()")
    browser.wait_until_drawn(driver)


def slide(driver, name, value):
    driver.execute_script(f"""
        const slider = document.getElementById('{name}');
        slider.value = {value};
        slider.dispatchEvent(new Event('input'));""")
    browser.wait_until_drawn(driver)


def eventually(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 30).until(lambda _: condition())


def plots_of(driver):
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CLASS_NAME, "plot")


# ---------------------------------------------------------------- opening


def test_page_opens_without_a_console_error_or_a_request_and_draws_both_surfaces(opened, shown, page_file):
    _, errors, addresses = opened
    assert errors == []
    outside = [urllib.parse.unquote(url) for url in addresses if not url.startswith(("data:", "blob:"))]
    assert outside == [urllib.parse.unquote(page_file.as_uri())]

    plots = plots_of(shown)
    assert len(plots) == 2
    for plot in plots:
        pixels = np.asarray(Image.open(io.BytesIO(plot.screenshot_as_png)).convert("RGB"), float)
        assert pixels.std() > 15 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
        assert (np.ptp(pixels, axis=2) > 60).mean() > 0.05  # a coloured surface, not only axes


def test_names_from_files_are_shown_as_text_and_never_run(shown):
    assert shown.title == HOSTILE + " | second"
    assert texts_of(shown, "h2") == [HOSTILE, "second"]
    press(shown, "quantity", "<b onclick=x>")
    np.testing.assert_allclose(drawn_heights(shown, 0), -LOSS, rtol=1e-6)
    assert shown.execute_script("return window.hacked") is None
    assert texts_of(shown, "img[src=x], b[onclick]") == []


def test_headline_says_networks_and_data_set_and_the_file_names_stand_in_the_details(shown, page_file):
    assert texts_of(shown, "h1") == [f"{HOSTILE} and vgg9 on digits: loss, accuracy and <b onclick=x>"]
    assert texts_of(shown, ".file") == [HOSTILE.replace("/", "_"), "b.h5"]


def test_nothing_on_the_page_offers_to_send_the_data_away(shown):
    titles = shown.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert len(titles) == 10
    assert not [title for title in titles if re.search("share|cloud|edit|upload", title, re.I)]


# ---------------------------------------------------------------- controls


@pytest.mark.parametrize("turned", [0, 1])
def test_rotating_one_panel_rotates_the_other(shown, turned):
    from selenium.webdriver.common.action_chains import ActionChains

    other = 1 - turned
    before = camera(shown, 0)
    np.testing.assert_allclose(camera(shown, 1), before)
    picture = plots_of(shown)[other].screenshot_as_png

    drag = ActionChains(shown).move_to_element(plots_of(shown)[turned]).click_and_hold()
    drag.move_by_offset(90, 30).move_by_offset(40, 10).release().perform()
    eventually(shown, lambda: np.abs(camera(shown, turned) - before).max() > 0.1)
    # it glides on after the button is up
    eventually(shown, lambda: shown.execute_script("return restedFrames >= REST_FRAMES"))
    np.testing.assert_allclose(camera(shown, 0), camera(shown, 1), atol=1e-6)
    assert np.abs(camera(shown, other) - before).max() > 0.1
    eventually(shown, lambda: plots_of(shown)[other].screenshot_as_png != picture)

    # a switch keeps the camera
    after = camera(shown, 0)
    press(shown, "split", "test")
    np.testing.assert_allclose([camera(shown, 0), camera(shown, 1)], [after, after], atol=1e-6)


def test_switches_change_the_values_that_are_drawn(shown):
    first_state = shown.execute_script("return [state.quantity, state.split, state.log]")
    assert first_state == ["loss", "train", True]  # the wall spans three decades
    np.testing.assert_allclose(drawn_heights(shown, 0), np.log10(LOSS), atol=1e-6)
    press(shown, "scaling", "linear")
    np.testing.assert_allclose(drawn_heights(shown, 0), LOSS, rtol=1e-6)
    press(shown, "split", "test")
    np.testing.assert_allclose(drawn_heights(shown, 0), LOSS + 1, rtol=1e-6)
    press(shown, "quantity", "acc")
    np.testing.assert_allclose(drawn_heights(shown, 0), 90 * np.exp(-LOSS), rtol=1e-5)
    press(shown, "quantity", "err")
    np.testing.assert_allclose(drawn_heights(shown, 0), 100 - 90 * np.exp(-LOSS), rtol=1e-5)
    assert texts_of(shown, "[aria-pressed=true]") == ["error", "test", "linear"]


def test_points_without_a_finite_value_are_gaps_and_clipping_cuts_at_the_shown_height(shown):
    press(shown, "scaling", "linear")
    expected = np.where(np.isfinite(WALL), WALL, np.nan)
    np.testing.assert_allclose(drawn_heights(shown, 1), expected, rtol=1e-6)

    low, high = LOSS.min(), np.nanmax(expected)
    slide(shown, "clip", 500)
    top = low + 0.5 * (high - low)
    np.testing.assert_allclose(drawn_heights(shown, 1), np.minimum(WALL, top), rtol=1e-6)  # +inf is at the top now
    (words,) = texts_of(shown, "#clipped")
    assert float(words.removeprefix("at ")) == pytest.approx(top, rel=1e-3)

    slide(shown, "clip", 1000)
    assert np.isnan(drawn_heights(shown, 1)[:, -1]).all()


def test_all_panels_share_one_colour_scale(shown):
    both = np.concatenate([drawn_heights(shown, 0).ravel(), drawn_heights(shown, 1).ravel()])
    first, second = of_plots(shown, "[p.data[0].cmin, p.data[0].cmax, p.layout.scene.zaxis.range]")
    assert first == second
    assert first[:2] == pytest.approx([np.nanmin(both), np.nanmax(both)], rel=1e-6)


# ---------------------------------------------------------------- floor and path


FLOOR_TRACES = "p.data.filter(trace => trace.meta === 'floor')"


def test_contours_on_the_floor_lie_below_the_surface_and_can_be_switched_off(shown):
    floor = shown.execute_script("return currentView().floor")
    for panel, (line,) in enumerate(of_plots(shown, FLOOR_TRACES)):
        (ground,) = {height for height in line["z"] if height is not None}
        assert floor < ground < np.nanmin(drawn_heights(shown, panel))

    shown.execute_script("document.getElementById('floor').click()")
    browser.wait_until_drawn(shown)
    assert of_plots(shown, FLOOR_TRACES) == [[], []]


def test_contours_on_the_floor_are_level_lines(shown):
    """On a line of the grid the surface is linear: there the height of a contour is known."""
    for panel, (line,) in enumerate(of_plots(shown, FLOOR_TRACES)):
        z = drawn_heights(shown, panel)
        points = np.array([line["x"], line["y"], line["line"]["color"]], dtype=float).T
        on_grid_lines = 0
        for x, y, level in points[np.isfinite(points).all(1)]:
            column, row = np.abs(X - x).argmin(), np.abs(Y - y).argmin()
            if abs(X[column] - x) < 1e-9:
                assert np.interp(y, Y, z[:, column]) == pytest.approx(level, rel=1e-4)
                on_grid_lines += 1
            elif abs(Y[row] - y) < 1e-9:
                assert np.interp(x, X, z[row]) == pytest.approx(level, rel=1e-4)
                on_grid_lines += 1
        assert on_grid_lines > 20


def test_no_contour_crosses_the_cells_of_a_gap(shown):
    assert np.isnan(drawn_heights(shown, 1)[GAP])
    _, (line,) = of_plots(shown, FLOOR_TRACES)
    x, y = np.array([line["x"], line["y"]], dtype=float)
    row, column = GAP
    near_x = (x > X[column - 1] + 1e-9) & (x < X[column + 1] - 1e-9)
    near_y = (y > Y[row - 1] + 1e-9) & (y < Y[row + 1] - 1e-9)
    assert not (near_x & near_y).any()


def test_path_lies_on_the_surface_and_follows_the_epoch_slider(shown):
    press(shown, "quantity", "acc")  # finite everywhere but in the gaps
    assert of_plots(shown, "p.data.length") == [2, 4]  # no path in the first panel
    assert texts_of(shown, "#reached") == ["epoch 30"]

    slide(shown, "epoch", 3)
    assert texts_of(shown, "#reached") == ["epoch 20"]
    line, shadow = of_plots(shown, "p.data.slice(2)")[1]
    np.testing.assert_allclose(line["x"], WALK["proj_xcoord"][:4], rtol=1e-6)
    np.testing.assert_allclose(line["y"], WALK["proj_ycoord"][:4], rtol=1e-6)
    assert line["text"] == ["epoch 0", "epoch 1", "epoch 10", "epoch 20"]

    # the first checkpoint, (1.5, 0.5), lies outside; the others a little above the surface
    surface_at = RegularGridInterpolator((Y, X), drawn_heights(shown, 1))
    points = np.column_stack([WALK["proj_ycoord"], WALK["proj_xcoord"]])[1:4]
    above = 0.015 * shown.execute_script("return currentView().span")
    expected = np.concatenate([[np.nan], surface_at(points) + above])
    np.testing.assert_allclose(np.array(line["z"], dtype=float), expected, rtol=1e-5, atol=1e-5)
    assert [height is None for height in shadow["z"]] == [True, False, False, False]
    assert "1 of 5 checkpoints lie outside" in texts_of(shown, ".facts")[1]


def test_hovering_tells_coordinates_and_value(shown):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    plot = plots_of(shown)[0]

    def hover_text():
        ActionChains(shown).move_to_element(plot).move_by_offset(np.random.randint(-30, 30), 0).perform()
        return "".join(text.text for text in plot.find_elements(By.CSS_SELECTOR, ".hovertext"))

    eventually(shown, lambda: re.search(r"x [-\d.]+, y [-\d.]+\s*train loss [\d.]+", hover_text()))


# ---------------------------------------------------------------- other pages


def open_page_of(driver, surface, folder):
    write_surface(folder / "s.h5", surface)
    h52html.main(["-f", str(folder / "s.h5")])
    browser.show(driver, folder / "s.h5.html")


def test_metrics_and_statistics_of_repeats_have_buttons_of_their_own(opened, tmp_path):
    driver = opened[0]
    surface = bowl_named("train_loss", "train_loss_low", "train_loss_iqr", "train_top5_acc", "train_my_err")
    open_page_of(driver, surface, tmp_path)
    assert texts_of(driver, "#quantity button") == [  # no error is made of a top5_acc
        "loss", "my err", "top5 acc", "loss, interquartile range", "loss, lower quartile"]
    press(driver, "quantity", "top5_acc")
    assert driver.execute_script("return currentTitle() + currentUnit()") == "train top5 acc"
    press(driver, "quantity", "my_err")
    np.testing.assert_allclose(drawn_heights(driver, 0), LOSS, rtol=1e-6)
    assert browser.errors(driver) == []


@pytest.mark.parametrize("name, title", [
    ("train_a b<i>", "train a b<i>"),
    ("constructor", "constructor"),
    ("__proto__", "proto"),
    ("train_toString_iqr", "train toString, interquartile range"),
])
def test_odd_names_of_values_do_not_break_the_page(opened, tmp_path, name, title):
    driver = opened[0]
    odd = bowl_named(name)
    write_surface(tmp_path / "plain.h5", bowl_named("train_loss"))
    write_surface(tmp_path / "odd.h5", odd)
    h52html.main(["-f", str(tmp_path / "odd.h5"), str(tmp_path / "plain.h5")])
    browser.show(driver, tmp_path / "odd.h5.html")
    assert driver.execute_script("return currentTitle()") == title
    np.testing.assert_allclose(drawn_heights(driver, 0), LOSS, rtol=1e-6)
    assert texts_of(driver, ".facts")[1] == f"{title} is not in this file"
    press(driver, "quantity", "loss")
    assert texts_of(driver, ".facts")[0] == "train loss is not in this file"
    np.testing.assert_allclose(drawn_heights(driver, 1), LOSS, rtol=1e-6)
    assert browser.errors(driver) == []


def test_untidy_texts_of_a_file_are_shown_in_one_line(opened, tmp_path):
    driver = opened[0]
    surface = surface_with_all(bowl, model="net\x00work\n\u2028A", dataset="</h1>\r\ndata")
    open_page_of(driver, surface, tmp_path)
    headline = "net work A on </h1> data: loss, accuracy and <b onclick=x>"
    assert texts_of(driver, "h1") == [headline]
    assert driver.title == headline
    assert driver.execute_script("return document.querySelector('h2').hidden")  # it would say the same
    assert browser.errors(driver) == []


def test_values_of_which_none_is_finite_are_said_to_have_none(opened, tmp_path):
    driver = opened[0]
    bowls = bowl_named("train_loss", "test_loss")
    values = {"train_loss": np.full_like(LOSS, np.nan), "test_loss": LOSS}
    open_page_of(driver, Surface(bowls.grid, values, bowls.computed), tmp_path)
    assert texts_of(driver, ".facts") == ["no finite value"]
    assert browser.errors(driver) == []


def dots_of(driver):
    """Share of the pixels of the plot that are coloured, as surfaces and markers are."""
    picture = np.asarray(Image.open(io.BytesIO(driver.find_element("css selector", ".plot").screenshot_as_png)))
    colours = picture[..., :3].astype(int)
    return (np.ptp(colours, axis=-1) > 40).mean()


@pytest.mark.parametrize("case", ["one finite", "large", "small", "far apart", "negative", "long and narrow"])
def test_unusual_numbers_are_seen(case, opened, tmp_path):
    x, y, z = X, Y, LOSS
    if case == "one finite":
        z = np.full_like(LOSS, np.nan)
        z[3, 4] = 0.3
    elif case == "large":
        x, y, z = 1e140 * X, 1e140 * Y, 1e140 * LOSS
    elif case == "small":
        x, y, z = 1e-140 * X, 1e-140 * Y, 1e-140 * LOSS
    elif case == "far apart":
        z = 1e8 + LOSS
    elif case == "negative":
        z = LOSS - 100
    else:
        x = 1e9 * X
    driver = opened[0]
    surface = Surface(Grid(x, y), {"train_loss": z}, {"train_loss": np.ones(z.shape, bool)})
    open_page_of(driver, surface, tmp_path)
    assert dots_of(driver) > (1e-4 if case == "one finite" else 0.02)
    np.testing.assert_allclose(drawn_heights(driver, 0), z, rtol=1e-6, atol=1e-6)
    assert browser.errors(driver) == []


def test_page_fits_a_phone(opened, page_file):
    driver = opened[0]
    browser.as_phone(driver, True)
    try:
        browser.show(driver, page_file)
        width, inner, boxes, tops = driver.execute_script("""
            const boxesOf = query => [...document.querySelectorAll(query)].map(e => e.getBoundingClientRect());
            const visible = boxesOf('.plot, #controls, #scale, h1, h2, button, input').filter(box => box.width);
            return [
              document.documentElement.scrollWidth,
              window.innerWidth,
              visible.map(box => [box.left, box.right]),
              boxesOf('.plot').map(box => box.top),
            ];""")
        assert inner == 390 and width <= inner  # nothing to scroll sideways
        assert all(left >= 0 and right <= inner for left, right in boxes)
        assert tops[1] > tops[0] + 250  # one above the other
        assert browser.errors(driver) == []
    finally:
        browser.as_phone(driver, False)
