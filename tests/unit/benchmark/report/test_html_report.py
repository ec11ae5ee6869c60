# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The report as a reader meets it: files on disk, a real browser, a phone, a keyboard."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from by_hand import HOSTILE, Finished

from anomalib_vmpfd.benchmark.report.write import write_report
from browser import headless_chromium


@pytest.fixture(scope="module")
def written(finished_once: Finished) -> list[Path]:
    """``report.md``, ``report.html`` and ``gallery.html`` of the suite made by hand."""
    return write_report(finished_once.suite, finished_once.results.folder, licensed=True)


@pytest.fixture(scope="module")
def page(written: list[Path]) -> Path:
    """``report.html``."""
    return written[1]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A headless Chromium."""
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def show(browser, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    mobile = width < 600
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    unpacked = "return [...document.images].every(image => image.complete && image.naturalWidth)"
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(unpacked))


def visible(browser, selector: str) -> list:
    return [element for element in browser.find_elements("css selector", selector) if element.is_displayed()]


def column(browser, table: str, title: str) -> list[str]:
    heads = [head.text.strip() for head in browser.find_elements("css selector", f"{table} thead th")]
    rows = visible(browser, f"{table} tbody tr")
    return [row.find_elements("css selector", "th, td")[heads.index(title)].text for row in rows]


def head(browser, table: str, title: str):
    heads = browser.find_elements("css selector", f"{table} thead th")
    return next(element for element in heads if element.text.strip() == title)


def choose(browser, form: str, name: str, label: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("css selector", f"#{form} [name={name}]")).select_by_visible_text(label)


def cards(browser) -> list[str]:
    return [element.text for element in visible(browser, "#gallery article h3")]


def test_the_page_stands_alone_and_runs_nobody_elses_code(chromium, page, finished_once):
    show(chromium, page)
    assert chromium.execute_script("return window.pwned") is None
    assert [entry for entry in chromium.get_log("browser") if "favicon" not in entry["message"]] == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    images = "return [...document.images].filter(i => !i.src.startsWith('data:') || !i.naturalWidth).length"
    assert chromium.execute_script(images) == 0
    assert HOSTILE in column(chromium, "#results-table", "Model")
    assert str(finished_once.data) not in page.read_text(encoding="utf-8")


def test_a_column_sorts_both_ways_by_number(chromium, page):
    show(chromium, page)
    title = "Latency ms"
    button = head(chromium, "#results-table", title).find_element("css selector", "button")
    unsorted = column(chromium, "#results-table", title)
    button.click()
    assert head(chromium, "#results-table", title).get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(chromium, "#results-table", title)] == sorted(
        map(float, unsorted), reverse=True
    )
    button.click()
    assert head(chromium, "#results-table", title).get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(chromium, "#results-table", title)] == sorted(map(float, unsorted))
    head(chromium, "#results-table", "Model").find_element("css selector", "button").click()
    sorted_heads = chromium.find_elements("css selector", "#results-table [aria-sort]")
    assert [element.text.strip() for element in sorted_heads] == ["Model"]


def test_filters_narrow_tables_plots_and_pictures(chromium, page):
    show(chromium, page)
    assert len(column(chromium, "#results-table", "Model")) == 8
    choose(chromium, "filters", "category", "Parts / bolt")
    assert set(column(chromium, "#results-table", "Data set / category")) == {"Parts / bolt"}
    assert set(column(chromium, "#kinds-table", "Data set / category")) == {"Parts / bolt"}
    assert len(visible(chromium, ".plots figure")) == 5, "two of the suite, three of the category"
    assert all(text.startswith("bolt:") for text in cards(chromium))
    choose(chromium, "filters", "kind", "crack")
    assert column(chromium, "#kinds-table", "Defect kind") == ["crack"]
    assert cards(chromium)
    assert all("crack/" in text for text in cards(chromium))
    choose(chromium, "filters", "model", "A")
    assert column(chromium, "#results-table", "Model") == ["A"]
    assert {tile.get_attribute("data-model") for tile in visible(chromium, "figure[data-model]")} == {"A"}
    status = chromium.find_element("id", "status")
    assert status.get_attribute("role") == "status"
    assert status.text.startswith("1 results, 1 defect kinds")
    chromium.find_element("css selector", "#filters [type=reset]").click()
    assert len(column(chromium, "#results-table", "Model")) == 8


def test_worst_mistakes_come_first(chromium, page):
    show(chromium, page)
    choose(chromium, "filters", "category", "Parts / nut")
    choose(chromium, "gallery-filters", "order", "A")
    assert cards(chromium)[:2] == ["nut: crack/1.png", "nut: good/1.png"]
    choose(chromium, "gallery-filters", "verdict", "false alarms")
    choose(chromium, "filters", "model", "A")
    assert cards(chromium) == ["nut: good/1.png"]
    choose(chromium, "gallery-filters", "verdict", "missed defects")
    assert cards(chromium) == ["nut: crack/1.png"]
    answer = visible(chromium, "#gallery figure[data-model=A] img")[0]
    assert answer.get_attribute("alt") == "Heatmap of A for crack/1.png: missed"


def test_defect_kinds_are_measured_against_all_normals(chromium, page):
    show(chromium, page)
    choose(chromium, "filters", "category", "Parts / nut")
    choose(chromium, "filters", "kind", "crack")
    # normals .1 .9 .2, cracks .8 .05 .7: 4 of 9 pairs in order; two of three above the threshold
    assert column(chromium, "#kinds-table", "A AUROC") == ["44.4"]
    assert column(chromium, "#kinds-table", "A found") == ["66.7"]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(chromium, page, width):
    show(chromium, page, width, 800)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    table = chromium.find_element("css selector", "#results-table")
    frame = table.find_element("xpath", "..")
    assert table.size["width"] > frame.size["width"] or width > 600, "the table scrolls in its own frame"


def test_a_keyboard_is_enough(chromium, page):
    from selenium.webdriver import ActionChains, Keys

    show(chromium, page)
    press = lambda *keys: ActionChains(chromium).send_keys(*keys).perform()  # noqa: E731
    press(Keys.TAB)
    skip = chromium.switch_to.active_element
    assert skip.text == "Skip to the results"
    assert skip.location["x"] >= 0
    press(Keys.ENTER)
    assert chromium.switch_to.active_element.get_attribute("id") == "results"
    press(Keys.TAB)
    assert chromium.switch_to.active_element.get_attribute("role") == "region", "the table can be scrolled with arrows"
    press(Keys.TAB)
    assert chromium.switch_to.active_element.text.strip() == "Model"
    outline = chromium.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    press(Keys.ENTER)
    assert head(chromium, "#results-table", "Model").get_attribute("aria-sort") == "ascending"


def test_what_a_screen_reader_needs_is_there(chromium, page):
    show(chromium, page)
    unnamed = """
      const named = (e) => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim();
      return [...document.querySelectorAll("button, select, [role=region], form, nav, a")].filter(e => !named(e)).length
        + [...document.images].filter(i => !i.alt).length
        + [...document.querySelectorAll("table")].filter(t => !t.caption).length
        + [...document.querySelectorAll("thead th:not([scope=col]), tbody th:not([scope=row])")].length"""
    assert chromium.execute_script(unnamed) == 0
    levels = chromium.execute_script("return [...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert chromium.execute_script("return document.documentElement.lang") == "en"


def table_of(text: str, title: str) -> list[list[str]]:
    """Rows of the table below a title of ``report.md``."""
    section = text.split(f"## {title}", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    return [line[2:-2].split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]


def test_intervals_are_those_of_the_markdown(chromium, page, written):
    show(chromium, page)
    markdown = written[0].read_text(encoding="utf-8")
    for name, title in (("differences", "Image AUROC less that of"), ("false-positives", "False-positive rate at")):
        expected = table_of(markdown, title)
        rows = chromium.find_elements("css selector", f"#{name}-table tbody tr")
        seen = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in rows]
        assert seen == expected
        assert any("±" in cell or "to" in cell for row in seen for cell in row[1:])
    choose(chromium, "filters", "category", "Parts / bolt")
    assert column(chromium, "#differences-table", "Data set / category") == ["Parts / bolt", "Mean of all"]


def test_a_page_without_a_gallery_stays_below_a_megabyte(page):
    """Also where a suite has as many categories as MVTec AD; their plots are most of a page."""
    text = page.read_text(encoding="utf-8")
    pictures = sum(map(len, re.findall(r'src="data:image/[^"]*"', text)))
    plots = sum(map(len, re.findall(r'data-svg="[^"]*"', text)))
    assert plots > 10_000
    assert len(text) - pictures + plots * 15 / 3 < 1_000_000


def contrast(browser, selector: str) -> float:
    """Contrast ratio of the first such element's text to the page's ground, as WCAG defines it."""
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    light = []
    for target, style in ((selector, "color"), ("body", "backgroundColor")):
        channels = [int(part) / 255 for part in re.findall(r"\d+", browser.execute_script(script, target, style))[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(chromium, page, scheme):
    show(chromium, page, scheme=scheme)
    for selector in ("body", "p", "a", ".verdict.wrong", ".verdict.right", ".failed code", "h1 em"):
        assert contrast(chromium, selector) >= 4.5, selector
    ground = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == (scheme == "dark")


def test_licensed_pictures_stay_out_of_the_report(written, finished_once):
    report, gallery = (path.read_text(encoding="utf-8") for path in written[1:])
    assert "mould: crack/1.png" not in report
    assert "bolt: crack/1.png" in report
    assert "mould: crack/1.png" in gallery
    assert written[2].name in (finished_once.results.folder / ".gitignore").read_text(encoding="utf-8")


def test_plots_are_valid_and_follow_the_scheme(written):
    plots = sorted((written[0].parent / "plots").glob("*.svg"))
    assert len(plots) == 2 + 3 * 3
    for plot in plots:
        root = ET.parse(plot).getroot()
        text = plot.read_text(encoding="utf-8")
        assert root.tag.endswith("svg")
        assert "prefers-color-scheme" in text
        assert "currentColor" in text
        assert not list(root.iter("{http://www.w3.org/2000/svg}img"))
    latency = ET.parse(plots[0]).getroot()
    assert HOSTILE in ["".join(element.itertext()) for element in latency.iter("{http://www.w3.org/2000/svg}text")]
    linked = re.findall(r"\]\((plots/[^)]+)\)", written[0].read_text(encoding="utf-8"))
    assert sorted(linked) == [f"plots/{plot.name}" for plot in plots]
