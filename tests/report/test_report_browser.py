"""The report in a browser: it opens from disk, the explorer says what the attribution says, and all can use it."""

import base64
import json
import math
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from browser import MARKS, look, opened, text, visit
from tiny import cli, train, undrawn

from elslightning.measurement.mosaic import mosaic
from elslightning.report.page.explorer import explore
from elslightning.report.page.page import write_report
from elslightning.runs.experiment import open_run, rebuild

SCREENSHOTS = "ELSLIGHTNING_SCREENSHOTS"
"""Names a directory that pictures of the page are written to."""
pytestmark = MARKS


@pytest.fixture(scope="module")
def run(tmp_path_factory, little_training):
    """A short training on digits, and its report."""
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)  # the run's own figures are not looked at
        directory = train(
            tmp_path_factory.mktemp("browser") / "digits",
            "data.train_size=200",
            "trainer.max_epochs=4",
            "comparison.num_pairs=7",
            "comparison.steps=5",
            "comparison.network_steps=5",
            "calibration.steps=5",
        )
    write_report(directory)
    return directory


@pytest.fixture(scope="module")
def explorer(run):
    """What the page should say."""
    opened = open_run(run)
    return explore(opened, rebuild(opened))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(chromium, run):
    """The report, opened anew from disk in a wide window."""
    return visit(chromium, run)


def viewed(driver, run, *, unfolded: bool = False, **view):
    """The report for those who only look at it, all of its details open or none: it is loaded anew only where another
    page is open, which takes longer than to lay it out."""
    if driver.current_url == (run / "report.html").as_uri():
        look(driver, **view)
    else:
        visit(driver, run, **view)
    opens = "document.querySelectorAll('details').forEach((each) => { each.open = arguments[0]; })"
    driver.execute_script(opens, unfolded)
    return driver


def data(page, identifier: str) -> dict[str, str]:
    return page.execute_script(f"return {{...document.getElementById('{identifier}').dataset}}")


def picture(page, identifier: str = "ex-canvas") -> str:
    return page.execute_script(f"return document.getElementById('{identifier}').toDataURL()")


def press(page, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def focus(page, identifier: str) -> None:
    page.execute_script(f"document.getElementById('{identifier}').focus()")


def point(page, row: int, column: int, explorer) -> None:
    """Moves the mouse over a pixel."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    canvas = page.find_element(By.ID, "ex-canvas")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    height, width = explorer.meta["height"], explorer.meta["width"]
    x = ((column + 0.5) / width - 0.5) * canvas.size["width"]
    y = ((row + 0.5) / height - 0.5) * canvas.size["height"]
    ActionChains(page).move_to_element_with_offset(canvas, round(x), round(y)).perform()


def accessibility(page) -> dict:
    """What axe finds: of its rules, elements are listed and named only where one is broken, which takes a while."""
    import axe_core_python

    page.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    done = "axe.run({resultTypes: ['violations'], selectors: false}).then(done, (error) => done(String(error)))"
    return page.execute_async_script(f"const done = arguments[0]; {done}")


def grave(found: dict) -> list:
    """The rules that are broken badly, and elements that break them."""
    return [
        (rule["id"], [node["html"][:150] for node in rule["nodes"]][:3])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def shown_pair(page) -> int:
    """The position of the chosen pair in the strip."""
    return int(page.execute_script("return document.querySelector('#ex-pairs :checked').value"))


def test_it_opens_from_disk_without_an_error_or_a_request(page):
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [part["params"]["request"]["url"] for part in messages if part["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file://", "data:", "blob:")) for url in asked)
    assert sum(url.startswith("file://") for url in asked) == 1


@pytest.mark.parametrize("pixel", [(0, 0), (3, 4), (7, 7)])
def test_a_pixel_pointed_at_shows_its_source(page, explorer, pixel):
    row, column = pixel
    point(page, 5, 1, explorer)
    point(page, row, column, explorer)
    found, pair = explorer.attributions, shown_pair(page)
    image, there, across = (int(part[pair, row, column, 0]) for part in (found.image, found.row, found.column))
    patch = int(found.patch_size[pair])
    assert data(page, "ex-source") == {"image": str(image), "patch": f"{there},{across},{patch}"}
    said = text(page, "ex-text")
    assert f"training image {image}" in said
    assert f"its {patch}×{patch} patch around row {there}, column {across}" in said
    number = float(said.split("patches: ")[1].split(". Tile")[0].replace(",", ""))
    # Entropies travel as bytes.
    assert number == pytest.approx(
        float(found.effective[pair, row, column]), rel=explorer.meta["entropyMax"] / 255 + 0.06
    )
    tiles = mosaic(found, circular=False).tile[pair]
    assert f"Tile: {int((tiles == tiles[row, column]).sum())} pixel" in said
    assert text(page, "ex-title") == f"Row {row}, column {column}"
    listed = page.execute_script(
        "return [...document.querySelectorAll('#ex-others li span:first-of-type')].map((x) => x.textContent)"
    )
    top = [int(part) for part in found.image[pair, row, column] if part >= 0]
    assert [int(line.split(",")[0].split(" ")[0]) for line in listed] == top


def test_a_touch_chooses_a_pixel(page, explorer):
    page.execute_script("document.getElementById('ex-canvas').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = page.execute_script("return document.getElementById('ex-canvas').getBoundingClientRect().toJSON()")
    place = {"x": box["left"] + box["width"] * 2.5 / 8, "y": box["top"] + box["height"] * 6.5 / 8}
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [place]})
    page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert text(page, "ex-title") == "Row 6, column 2"


def test_the_slider_walks_from_noise_to_image(page, explorer):
    from selenium.webdriver.common.keys import Keys

    focus(page, "ex-step")
    seen = [picture(page)]
    for step in range(4, 0, -1):
        press(page, Keys.ARROW_LEFT)
        seen.append(picture(page))
        told = text(page, "ex-step-text")
        assert told.startswith(f"Step {step} of 5 · t = {(6 - step) / 5:.2f} · patch ")
        patch = explorer.meta["steps"][step - 1]["patch"]
        assert f"patch {patch}×{patch}" in told
        spoken = page.execute_script("return document.getElementById('ex-step').getAttribute('aria-valuetext')")
        assert spoken == told.replace(" · ", ", ")
    assert len(set(seen)) == len(seen)
    assert math.isclose(explorer.meta["steps"][0]["time"], 1)


def test_the_views_differ(page):
    seen = set()
    for view in ("theory", "network", "difference", "mosaic", "order"):
        page.execute_script(f"document.querySelector('[name=ex-view][value={view}]').click()")
        seen.add(picture(page))
    assert len(seen) == 5


def test_the_order_parameter_is_drawn_at_every_pixel(page, explorer):
    point(page, 7, 7, explorer)
    page.execute_script("document.querySelector('[name=ex-view][value=order]').click()")
    pair, side = shown_pair(page), page.execute_script("return document.getElementById('ex-canvas').width") / 8
    drawn = page.execute_script(
        "const c = document.getElementById('ex-canvas').getContext('2d'), s = arguments[0];"
        "return [0, 1, 2, 3].map((i) => c.getImageData((i + .5) * s, .5 * s, 1, 1).data[0])",
        side,
    )
    order = 1 - explorer.attributions.entropy[pair, 0, :4] / math.log(explorer.meta["pairs"][pair]["images"])
    assert drawn == pytest.approx((255 * order.clamp(min=0)).tolist(), abs=255 * 0.02)


def test_the_theory_s_pixels_are_drawn(page, explorer):
    """The colours on the canvas are those of the sample, away from the frames."""
    point(page, 7, 7, explorer)
    pair = shown_pair(page)
    run = explorer.meta
    side = page.execute_script("return document.getElementById('ex-canvas').width") / run["width"]
    drawn = page.execute_script(
        "const c = document.getElementById('ex-canvas').getContext('2d'), s = arguments[0];"
        "return [0, 1, 2, 3].map((i) => c.getImageData((i + .5) * s, .5 * s, 1, 1).data[0])",
        side,
    )
    content = base64.b64decode(explorer.blob)
    place = run["arrays"]["theory"]
    bytes_ = np.frombuffer(zlib.decompress(content)[place["offset"] :][: place["bytes"]], np.uint8)
    assert drawn == bytes_.reshape(place["shape"])[pair, -1, 0, 0, :4].tolist()


def test_the_keyboard_alone_reaches_and_operates_everything(page):
    from selenium.webdriver.common.keys import Keys

    def active() -> str:
        return page.execute_script("const e = document.activeElement; return e.id || e.name || e.tagName")

    reached = []
    for _ in range(60):
        press(page, Keys.TAB)
        name = active()
        if name == "BODY":  # round to the start
            break
        if name not in reached:
            reached.append(name)
        outline = page.execute_script(
            "const e = document.activeElement, t = e.type === 'radio' ? e.closest('label') : e;"
            "return [t, ...t.children].some((x) => getComputedStyle(x).outlineStyle !== 'none')"
        )
        assert outline, f"no focus to be seen on {name}"
        if name == "ex-pair":
            before = picture(page)
            press(page, Keys.ARROW_RIGHT)
            assert picture(page) != before
        elif name == "ex-view":
            before = picture(page)
            press(page, Keys.ARROW_RIGHT)
            assert picture(page) != before
            press(page, Keys.ARROW_LEFT)
        elif name == "ex-canvas-box":
            for key, place in (
                (Keys.ARROW_UP, "Row 3, column 4"),
                (Keys.ARROW_LEFT, "Row 3, column 3"),
                (Keys.HOME, "Row 3, column 0"),
                (Keys.PAGE_DOWN, "Row 7, column 0"),
                (Keys.ARROW_DOWN, "Row 7, column 0"),
                (Keys.END, "Row 7, column 7"),
                (Keys.PAGE_UP, "Row 0, column 7"),
            ):
                press(page, key)
                assert text(page, "ex-title") == place
        elif name == "ex-play":
            press(page, Keys.ENTER)
            assert text(page, "ex-play") == "Stop"
            press(page, Keys.ENTER)
            assert text(page, "ex-play") == "Play"
        elif name == "SUMMARY":
            press(page, Keys.ENTER)
    assert {"ex-pair", "ex-view", "ex-canvas-box", "ex-play", "ex-step", "SUMMARY", "A"} <= set(reached)
    order = [name for name in reached if name.startswith("ex-")]
    assert order == ["ex-pair", "ex-view", "ex-canvas-box", "ex-play", "ex-step"]


def test_the_chosen_pixel_is_announced(page, explorer):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    focus(page, "ex-canvas-box")
    press(page, Keys.ARROW_UP)
    WebDriverWait(page, 5).until(lambda page: text(page, "ex-live").startswith("Row 3, column 4. Leading source: "))
    assert text(page, "ex-live").endswith(text(page, "ex-text"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1920])
def test_nothing_keeps_anyone_out(chromium, run, scheme, width):
    page = viewed(chromium, run, unfolded=True, width=width, prefers_color_scheme=scheme)
    found = accessibility(page)
    assert grave(found) == []
    assert len(found["passes"]) > 15


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_makes_the_page_scroll_sideways(chromium, run, width, scheme):
    page = viewed(chromium, run, width=width, prefers_color_scheme=scheme)
    height = page.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["height"]
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    if folder := os.environ.get(SCREENSHOTS):
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"report-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))


def test_tables_fit_a_narrow_screen(chromium, run):
    page = viewed(chromium, run, unfolded=True, width=390)
    wide = "return [...document.querySelectorAll('.scroll')].map((each) => each.scrollWidth - each.clientWidth)"
    beyond = page.execute_script(wide)
    assert len(beyond) > 5
    assert max(beyond) <= 0
    # What stands over a column on wide screens stands before each of its cells.
    shown = "return getComputedStyle(document.querySelector('td[data-head=\"median r\"]'), '::before').content"
    assert page.execute_script(shown).startswith('"median r')


CUT_OFF = """
const beyond = (inner, outer) => Math.max(
  outer.left - inner.left, inner.right - outer.right, outer.top - inner.top, inner.bottom - outer.bottom);
return [...document.querySelectorAll("svg")].flatMap((figure) => [...figure.querySelectorAll("text")]
  .filter((word) => beyond(word.getBoundingClientRect(), figure.getBoundingClientRect()) > 1)
  .map((word) => word.textContent));
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_word_of_a_figure_is_cut_off(chromium, run, width):
    page = viewed(chromium, run, width=width)
    assert page.execute_script("return document.querySelectorAll('svg text').length") > 50
    assert page.execute_script(CUT_OFF) == []


def test_whoever_asks_for_less_motion_gets_less(chromium, run):
    page = viewed(chromium, run, prefers_reduced_motion="reduce")
    assert page.execute_script("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_it_can_be_printed(chromium, run):
    page = viewed(chromium, run)
    printed = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, little_training):
    """What `elslightning create` leaves of a few digits."""
    directory = tmp_path_factory.mktemp("browser") / "created"
    words = ["data.train_size=40", "data.val_size=10", "creativity=[0,0.5,1]", "num_samples=6", "steps=4", "scales=5"]
    done = cli("create", *words, f"hydra.run.dir={directory}")
    assert done.code == 0, done.err
    return directory / "gallery.html"


def visit_gallery(driver, gallery: Path, width: int, scheme: str = "light"):
    look(driver, width=width, prefers_color_scheme=scheme)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(gallery.as_uri())
    return driver


def test_the_gallery_opens_from_disk_without_an_error_or_a_request(chromium, gallery):
    page = visit_gallery(chromium, gallery, 1280)
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [part["params"]["request"]["url"] for part in messages if part["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert sum(url.startswith("file://") for url in asked) == 1
    loaded = page.execute_script(
        "return [...document.images].every((image) => image.complete && image.naturalWidth === 8)"
    )
    assert loaded


def test_a_sample_pointed_at_or_reached_by_keyboard_shows_its_mosaic(chromium, gallery):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    page = visit_gallery(chromium, gallery, 1280)
    first, second = page.find_elements(By.CLASS_NAME, "work")[:2]

    def shown(work) -> str:
        return page.execute_script("return getComputedStyle(arguments[0].querySelector('.over')).opacity", work)

    assert (shown(first), shown(second)) == ("0", "0")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", first)
    ActionChains(page).move_to_element(first).perform()
    assert (shown(first), shown(second)) == ("1", "0")
    page.execute_script("arguments[0].focus()", second)
    assert shown(second) == "1"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_gallery_keeps_nobody_out_and_fits_every_width(chromium, gallery, width, scheme):
    page = visit_gallery(chromium, gallery, width, scheme)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    found = accessibility(page)
    assert grave(found) == []
    if folder := os.environ.get(SCREENSHOTS):
        height = page.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["height"]
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"gallery-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
