"""The report in a real browser, if Chromium, chromedriver and selenium are installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from tests.runs.tiny import wait_for

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra test)")
    path_of_browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not (path_of_browser and driver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = path_of_browser
    # a container's root has no sandbox, and its /dev/shm is small
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(driver, env={**os.environ, "no_proxy": "*"})
    try:
        started = selenium.Chrome(options, service)
    except Exception as error:
        pytest.skip(f"chromium does not start: {str(error).splitlines()[0]}")
    yield started
    started.quit()


@pytest.fixture(scope="module")
def file(tree, html) -> Path:
    """The file with the content ``html``."""
    out: Path = tree.root / "report.html"
    assert out.read_text(encoding="utf-8") == html
    return out


@pytest.fixture
def page(browser, file) -> Any:
    """The page, newly opened on a desktop."""
    from selenium.webdriver.support.ui import WebDriverWait

    size(browser, 1280)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.get(file.as_uri())
    # on a busy machine the page is there before its scripts have run
    WebDriverWait(browser, 30).until(lambda driver: of(driver, "document.readyState") == "complete")
    return browser


def size(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def of(page: Any, script: str) -> Any:
    return page.execute_script(f"return {script}")


def column(page: Any, table: str, index: int) -> list[str]:
    """Return the sort keys of the shown rows."""
    return of(
        page,
        f"[...document.querySelectorAll('{table} tbody tr')].filter(r => r.offsetParent)"
        f".map(r => r.cells[{index}].dataset.value)",
    )


def press(page: Any, selector: str, index: int = 0) -> None:
    of(page, f"document.querySelectorAll('{selector}')[{index}].click()")


def choose(page: Any, selector: str, value: str) -> None:
    of(
        page,
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('input')); }})"
        f"(document.querySelector('{selector}'))",
    )


def test_nothing_is_logged_and_nothing_is_loaded(page):
    entries = page.get_log("browser")
    page.refresh()
    entries += page.get_log("browser")
    assert [e for e in entries if "favicon" not in e["message"]] == []
    fetched = of(page, "performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith("data:") for name in fetched)


def test_every_image_is_shown(page):
    broken = of(
        page,
        "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length",
    )
    assert broken == 0 and of(page, "document.images.length") > 10


def test_a_click_on_a_heading_sorts_and_a_second_click_reverses(page):
    table = "#cases-test"
    press(page, f"{table} .sort", 2)
    first = [float(v) for v in column(page, table, 2)]
    press(page, f"{table} .sort", 2)
    second = [float(v) for v in column(page, table, 2)]
    assert len(first) == 7 and len(set(first)) > 1
    assert first == sorted(first, reverse=True) and second == sorted(first)
    press(page, f"{table} .sort", 0)
    assert column(page, table, 0) == sorted(column(page, table, 0))
    assert of(page, f"document.querySelector('{table} th').ariaSort") == "ascending"


def test_filters_hide_rows_and_count_the_others(page):
    table = "#cases-test"
    assert len(column(page, table, 0)) == 7 and set(column(page, table, 1)) == {"all classes"}
    choose(page, "select[data-filters=cases-test]", "tumour")
    assert set(column(page, table, 1)) == {"tumour"}
    choose(page, "input[data-filters=cases-test]", "TEST_3")
    assert column(page, table, 0) == ["test_3"]
    assert of(page, "document.getElementById('count-cases-test').textContent") == "1 of 21 rows"
    choose(page, "select[data-filters=cases-test]", "")
    assert len(column(page, table, 0)) == 3


def test_another_metric_can_be_selected(page):
    shown = "[...document.querySelectorAll('.metric')].filter(m => m.offsetParent)"
    assert of(page, f"{shown}.map(m => m.dataset.name)") == ["dice"]
    choose(page, "[data-shows]", "hd95_edge_mm")
    assert of(page, f"{shown}.map(m => m.dataset.name)") == ["hd95_edge_mm"]


def test_the_slider_changes_the_slice_and_the_keyboard_moves_it(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    state = (
        "(f => [f.querySelector('.base').src, f.querySelector('.layer').src, "
        "f.querySelector('.layer').alt, f.querySelector('output').textContent])"
        "(document.querySelector('.viewer'))"
    )
    choose(page, ".viewer input", "0")
    first = of(page, state)
    choose(page, ".viewer input", "1")
    second = of(page, state)
    assert all(old != new for old, new in zip(first, second, strict=True))
    page.find_element(By.CSS_SELECTOR, ".viewer input").send_keys(Keys.ARROW_LEFT)
    assert of(page, state) == first
    press(page, ".viewer .step", 1)
    assert of(page, state) == second
    press(page, ".viewer .step", 0)
    press(page, ".viewer .step", 0)  # stops at the first
    assert of(page, state) == first


def test_a_case_of_the_table_links_to_its_pictures(page):
    choose(page, ".viewer input", "0")
    shown = "[...document.querySelectorAll('#cases-test tr:not([hidden]) a[data-viewer=\"0\"]')]"
    start = of(page, f"{shown}[0].dataset.frame")
    of(page, f"{shown}[0].click()")
    assert page.current_url.endswith("#viewer-0")
    assert of(page, "document.querySelector('.viewer input').value") == start


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_never_scrolls_sideways(page, width):
    size(page, width)
    of(page, "document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert of(page, "document.documentElement.scrollWidth") <= width
    escaping = of(
        page,
        "[...document.querySelectorAll('main *')].filter(e => "
        f"!e.closest('.wide, .panels, pre, svg') && e.getBoundingClientRect().right > {width} + 1)"
        ".map(e => e.outerHTML.slice(0, 80))",
    )
    assert escaping == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_every_axis_has_at_least_two_numbers(page, width):
    """Narrow charts leave out some of many numbers."""
    size(page, width)
    shown = (
        "[...document.querySelectorAll('.boxes .ticks')].map(t => [...t.children])"
        ".map(all => all.filter(e => e.getClientRects().length).length)"
    )
    assert min(of(page, shown)) >= 2
    of(
        page,
        "document.querySelectorAll('.boxes .ticks text:nth-child(n+3)').forEach(e => e.remove())",
    )
    assert set(of(page, shown)) == {2}


def test_a_page_of_values_only_logs_nothing_and_sorts(browser, tree, tmp_path, monkeypatch):
    tree.set_paths(monkeypatch)
    values_file, out = tmp_path / "kept.csv", tmp_path / "values.html"
    assert main(["compare", "-d", "7", "--write-values", str(values_file)]) == 0
    assert main(["report", "--values", str(values_file), "-o", str(out)]) == 0
    browser.get_log("browser")
    size(browser, 1280)
    browser.get(out.as_uri())
    press(browser, "#cases-test .sort", 2)
    shown = [float(v) for v in column(browser, "#cases-test", 2)]
    assert len(shown) == 7 and shown == sorted(shown, reverse=True)
    assert [e for e in browser.get_log("browser") if "favicon" not in e["message"]] == []


def test_print_hides_nothing(page):
    choose(page, "input[data-filters=cases-test]", "test_3")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    wait_for(lambda: of(page, "document.querySelectorAll('details:not([open])').length") == 0, 30)
    assert len(column(page, "#cases-test", 0)) == 21
    hidden = of(
        page,
        "[...document.querySelectorAll('main p, main td, main h2, main h3, main dd, main img, "
        "main svg.panel, main pre')].filter(e => e.getClientRects().length === 0)"
        ".map(e => e.outerHTML.slice(0, 80))",
    )
    assert hidden == []
    clipped = "[...document.querySelectorAll('.wide')].filter(e => e.scrollHeight > e.clientHeight"
    assert of(page, f"{clipped} + 1).length") == 0
    assert len(page.print_page()) > 10_000
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
    page.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    assert of(page, "document.querySelectorAll('details:not([open])').length") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_light_and_dark_mode(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    background = of(page, "getComputedStyle(document.body).backgroundColor")
    for selector in ("body", ".note", "h1 .mark", "#methods .difference", ".tally"):
        colour = of(page, f"getComputedStyle(document.querySelector('{selector}')).color")
        assert contrast(colour, background) >= 4.5, (selector, colour, background)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two "rgb(...)" as defined by WCAG 2."""

    def luminance(colour: str) -> float:
        channels = [int(channel) / 255 for channel in colour[4:-1].split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_boxes_fill_their_panel(page):
    """The axis takes most of the width of a panel, and the panels that of the page."""
    shares = of(
        page,
        "[...document.querySelectorAll('.boxes .strip')].map(s => "
        "s.getBoundingClientRect().width / s.closest('.chart').getBoundingClientRect().width)",
    )
    assert min(shares) > 0.5
    ends = of(
        page,
        "[...document.querySelectorAll('.boxes')].map(b => b.getBoundingClientRect().right - "
        "b.lastElementChild.getBoundingClientRect().right)",
    )
    assert max(map(abs, ends)) < 1


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_column_stays_with_its_lines_where_a_table_scrolls(page, width):
    size(page, width)
    of(page, "document.querySelectorAll('table.stays').forEach(t => { t.style.width = '3000px'; })")
    of(page, "document.querySelectorAll('.wide').forEach(w => { w.scrollLeft = 400; })")
    cells = (
        "[...document.querySelectorAll('table.stays tbody th')].filter(c => c.offsetParent).map(c "
        "=> [c.getBoundingClientRect().left - c.closest('.wide').getBoundingClientRect().left, "
        "parseFloat(getComputedStyle(c).borderBottomWidth)])"
    )
    positions = of(page, cells)
    assert positions and all(abs(offset) < 1 and line == 1 for offset, line in positions)


def test_on_a_phone_the_panels_are_one_row_that_scrolls(page):
    size(page, 390)
    tops, room, shown = of(
        page,
        "(p => [[...p.children].map(c => c.getBoundingClientRect().bottom), p.scrollWidth, "
        "p.clientWidth])(document.querySelector('.panels'))",
    )
    assert len(tops) == 5 and len(set(tops)) == 1 and room > shown


def test_a_row_that_scrolls_has_a_shadow_at_its_right_edge(page):
    size(page, 390)
    for selector in ("nav", ".panels", "#cases .wide"):
        over = f"(e => e.scrollWidth > e.clientWidth)(document.querySelector('{selector}'))"
        style = f"getComputedStyle(document.querySelector('{selector}'))"
        assert of(page, over) and of(page, f"{style}.backgroundAttachment") == "local, scroll"
