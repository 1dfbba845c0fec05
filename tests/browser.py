"""Pages opened from disk in Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PACKAGES = [name for name in ("selenium", "axe_core_python") if find_spec(name) is None]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="chromium and chromedriver are not both on this machine"),
    pytest.mark.skipif(bool(PACKAGES), reason=f"not installed: {', '.join(PACKAGES)} (pip install elslightning[dev])"),
]
"""Of tests that open pages."""


@contextmanager
def opened(profile: Path) -> Iterator[Any]:
    """A browser whose profile lies in a folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        driver.set_script_timeout(60)
        yield driver


def visit(driver: Any, run: Path, **view: Any) -> Any:
    """Opens the report anew with a view, see `look`, and waits for the explorer."""
    from selenium.webdriver.support.ui import WebDriverWait

    look(driver, **view)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get((run / "report.html").as_uri())
    WebDriverWait(driver, 20).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.explorer") == "ready"
    )
    return driver


def look(driver: Any, *, width: int = 1280, height: int = 900, **media: str) -> None:
    """Gives the window some size, and what media queries may ask, which the open page is laid out for at once."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def text(page: Any, identifier: str) -> str:
    return page.execute_script(f"return document.getElementById('{identifier}').textContent")
