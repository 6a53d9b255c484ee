"""A headless Chromium to test pages in: Debian's packages `chromium` and `chromium-driver`, and selenium from PyPI."""

import json
import shutil

FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader
--window-size=900,600 --hide-scrollbars""".split()
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


def missing():
    """What is not installed for a browser test, in words; '' when it can run."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install selenium)"
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "chromium is not installed (apt install chromium chromium-driver)"
    return ""


def start():
    """A selenium driver; `quit()` it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in FLAGS:  # without --user-data-dir chromedriver makes a fresh profile, and deletes it
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})

    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(90)
    return driver


def show(driver, path):
    """Load the file and wait until the page says that it is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    # forget what the browser's own start page did
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")

    driver.get(path.as_uri())
    WebDriverWait(driver, 90).until(lambda d: d.execute_script("return document.body.dataset.ready") == "yes")


def wait_until_drawn(driver):
    """Wait until the page has drawn what was asked of it."""
    driver.execute_async_script("""
        const done = arguments[0];
        requestAnimationFrame(() => requestAnimationFrame(() => drawn.then(done)));""")


def as_phone(driver, on):
    """Turn the window into a phone's screen, or back."""
    if on:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    else:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def errors(driver):
    """What the page has written to the console as an error."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def requests(driver):
    """The addresses that were asked for since the page was loaded, the page's own included."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
