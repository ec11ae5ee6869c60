# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The inspection page with a trained model: it says what the commands say, and a browser can use it."""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

import tiny
from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.cli import main
from anomalib_vmpfd.decide.recalibration import recalibrate
from anomalib_vmpfd.decide.threshold import save_threshold
from anomalib_vmpfd.engine.export_metadata import metadata
from anomalib_vmpfd.inspection.folder import images_of
from anomalib_vmpfd.inspection.handlers import WHOLE, Handlers
from anomalib_vmpfd.inspection.judge import judge_of
from browser import headless_chromium

SAID = ["truth", "wrongly_judged"]  # columns of the page alone


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images, and ``test`` with ``good`` and ``square`` as in anomalib's data sets."""
    root = tiny.with_defects(tmp_path_factory.mktemp("parts"))
    shutil.copytree(root / "good_test", root / "test" / "good")
    shutil.copytree(root / "bad", root / "test" / "square")
    return root


@pytest.fixture(scope="module")
def checkpoint(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runner = tiny.engine(tmp_path_factory.mktemp("trained"))
    runner.fit(tiny.model(), datamodule=tiny.data(parts))
    return Path(runner.trainer.checkpoint_callback.best_model_path)


def predicted(parts: Path, checkpoint: Path, results: Path) -> pd.DataFrame:
    """Rows of ``anomalib predict``."""
    tiny.engine(results).predict(VmpfdAd(visualizer=False), data_path=parts / "test", ckpt_path=checkpoint)
    (table,) = results.rglob("predictions.csv")
    return pd.read_csv(table)


def handlers_of(model: Path, data: Path, folder: Path) -> Handlers:
    handlers = Handlers(judge_of(model), folder)
    handlers.session.waiting.extend(images_of(data))
    assert next(places := handlers.judge_waiting()) == 0
    assert not any(places)
    return handlers


def test_rows_are_those_of_the_command(parts, checkpoint, tmp_path):
    expected = predicted(parts, checkpoint, tmp_path / "results")
    handlers = handlers_of(checkpoint, parts / "test", tmp_path)
    seen = pd.read_csv(handlers.rows_file(handlers.judge.threshold))
    pd.testing.assert_frame_equal(seen.drop(columns=SAID), expected, check_exact=True)
    assert seen.truth.tolist() == ["normal"] * 4 + ["anomalous"] * 4
    assert expected.label.nunique() == 2


def test_a_chosen_threshold_goes_into_a_new_checkpoint(parts, checkpoint, tmp_path):
    old = shutil.copy(checkpoint, tmp_path / "model.ckpt")
    handlers = handlers_of(old, parts / "test", tmp_path)
    # between the two least anomalous of the defects
    lowest = sorted(each.score for each in handlers.session.images if each.known)[:2]
    threshold = round(sum(lowest) / 2, 4)
    said = handlers.keep_threshold(threshold)
    new = tmp_path / f"model-threshold-{threshold:.4f}.ckpt"
    assert str(new) in said
    assert old.read_bytes() == checkpoint.read_bytes()
    expected = pd.read_csv(handlers.rows_file(threshold)).drop(columns=[*SAID, "model"])
    seen = predicted(parts, new, tmp_path / "results").drop(columns="model")
    pd.testing.assert_frame_equal(seen, expected, check_exact=False, rtol=1e-6)
    assert (seen.label == "normal").sum() == handlers.session.counts(threshold).normal
    assert judge_of(new).threshold == pytest.approx(threshold), "the page begins with it"
    thresholds = metadata(VmpfdAd.load_from_checkpoint(new), None)["thresholds"]
    assert thresholds["pred_score"] == pytest.approx(threshold), "its exports say it"
    with pytest.raises(FileExistsError, match="is left alone"):
        save_threshold(old, threshold)
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        save_threshold(old, 1.0)


def test_recalibration_is_that_of_the_command(parts, checkpoint, tmp_path):
    old = shutil.copy(checkpoint, tmp_path / "model.ckpt")
    for index in range(24):
        tiny.save(tmp_path / "new" / "good" / f"{index:03}.png", tiny.texture(700 + index))
    shutil.copytree(parts / "bad", tmp_path / "new" / "bad")
    handlers = handlers_of(old, tmp_path / "new", tmp_path)
    said = handlers.recalibrate(0.05)
    assert "of these 24 normal images" in said
    expected = recalibrate(old, tmp_path / "new" / "good", 0.05, output=tmp_path / "expected.ckpt")
    seen, wanted = (judge_of(path) for path in (tmp_path / "model-image-fpr-0.05.ckpt", expected.output))
    for path in sorted((parts / "bad").iterdir()):
        assert seen.row(path) == wanted.row(path)
    handlers.session.images = handlers.session.images[:8]
    with pytest.raises(ValueError, match="What is known to be good holds"):
        handlers.recalibrate(0.1)


def test_every_panel_and_region_is_drawn(parts, checkpoint, tmp_path):
    handlers = handlers_of(checkpoint, parts / "test", tmp_path)
    assert {"anomaly_map", "lam", "gam", "tam"} <= handlers.judge.titles.keys()
    worst = handlers.at(1, "score", 0.5)
    handlers.session.images[worst].row["regions"][0]["box"] = (10, 10, 26, 26)  # the whole image on one so small
    shown = handlers.show(worst, "score", 0.5, "anomaly_map")
    assert (shown.position, shown.total) == (1, 8)
    assert shown.regions[0] == WHOLE
    assert len(shown.regions) > 1
    drawn = [handlers.show(worst, "score", 0.5, name).pictures for name in handlers.judge.titles]
    zoomed = handlers.show(worst, "score", 0.5, "tam", shown.regions[1]).pictures
    assert len({*map(str, drawn), str(zoomed)}) == len(drawn) + 1, "no two are the same"
    handlers.clear()
    assert handlers.show(worst, "score", 0.5, "tam").place is None, "removed by another window"
    assert (parts / "test" / "good" / "000.png").is_file(), "only uploads are deleted"


def test_a_wrong_model_and_a_missing_library_are_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    (tmp_path / "wrong.ckpt").write_bytes(b"no checkpoint")
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "anomalib_vmpfd.inspection.page", raising=False)
    assert main(["inspect", "--ckpt_path", str(checkpoint), "--browser", "false"]) == 2
    assert 'pip install "anomalib-vmpfd[app]"' in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'anomalib-vmpfd[app]'")
    assert main(["inspect", "--ckpt_path", str(tmp_path / "wrong.ckpt"), "--browser", "false"]) == 2
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The page of the checkpoint, without images."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'anomalib-vmpfd[app]'")
    from anomalib_vmpfd.inspection.command import open_page

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
            patch.setenv(name, "")  # so that what the page sets is taken back
        opened = open_page(checkpoint, tmp_path_factory.mktemp("page"))
        yield opened
        opened.close(verbose=False)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A headless Chromium."""
    logs = {"performance": "ALL", "browser": "ALL"}
    with headless_chromium(tmp_path_factory.mktemp("chromium"), loggingPrefs=logs) as browser:
        yield browser


def show(browser, url: str, width: int = 1280, scheme: str = "light") -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)
    eventually(lambda: browser.find_elements("css selector", "#summary [role=status]"))


def eventually(condition: Callable, seconds: float = 30):
    """What a condition gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    pytest.fail("it never happened")


def text(browser, part: str) -> str:
    return browser.execute_script(f"return document.querySelector('#{part}')?.textContent || ''")


def move_threshold(browser, value: float) -> None:
    """As a hand does: a value and an input event of the slider."""
    browser.execute_script(
        "const s = document.querySelector('#threshold input[type=range]'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input', {bubbles: true}));",
        str(value),
    )


def test_a_browser_uploads_moves_the_threshold_and_exports_what_the_command_writes(
    chromium, page, parts, checkpoint, tmp_path
):
    show(chromium, page.local_url)
    (tmp_path / "note.txt").write_text("no image", "utf-8")
    files = [*sorted((parts / "test").rglob("*.png")), tmp_path / "note.txt"]
    # the file names of both folders are the same
    renamed = [shutil.copy(path, tmp_path / f"{path.parent.name}_{path.name}") for path in files[:-1]]
    field = chromium.find_element("css selector", "#files input[type=file]")
    field.send_keys("\n".join(map(str, [*renamed, files[-1]])))
    eventually(lambda: "1 file could not be judged" in text(chromium, "summary"))
    assert "note.txt: not an image" in text(chromium, "summary")
    assert len(chromium.find_elements("css selector", "#pictures figure > img")) == 3

    expected = predicted(parts, checkpoint, tmp_path / "results")
    normal = int((expected.label == "normal").sum())
    eventually(lambda: f"{normal} normal, {8 - normal} anomalous" in text(chromium, "summary"))
    threshold = float(expected.score.max()) - 0.0002
    above = int((expected.score >= round(threshold, 4)).sum())
    move_threshold(chromium, round(threshold, 4))
    eventually(lambda: f"{8 - above} normal, {above} anomalous" in text(chromium, "summary"))
    assert above != 8 - normal

    chromium.find_element("css selector", "#results button").click()
    eventually(lambda: chromium.find_element("id", "rows").is_displayed())
    chromium.find_element("id", "rows").click()
    links = eventually(lambda: chromium.find_elements("css selector", "#written a[href]"))
    content = chromium.execute_async_script(
        "fetch(arguments[0]).then(answer => answer.text()).then(arguments[1])", links[0].get_attribute("href")
    )
    seen = pd.read_csv(io.StringIO(content))
    given = [column for column in expected if column not in {"path", "label", "threshold"}]
    order = seen.path.str.removesuffix(".png").sort_values().index
    pd.testing.assert_frame_equal(seen.loc[order, given].reset_index(drop=True), expected[given], check_exact=True)
    assert (seen.label == "anomalous").sum() == above


def test_nothing_is_asked_of_another_server_and_no_other_site_can_ask(chromium, page):
    import httpx

    show(chromium, page.local_url)
    asked = chromium.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert asked
    own = page.local_url.rstrip("/")
    assert [each for each in asked if not each.startswith((own, "data:", "blob:"))] == []
    tried = [json.loads(each["message"])["message"] for each in chromium.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in tried if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith((own, "data:", "blob:", "chrome:"))] == []
    assert page.share_url is None
    assert httpx.get(own).status_code == 200
    assert httpx.get(own, headers={"Host": "elsewhere.example"}).status_code == 400, "no rebinding of names"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(chromium, page, width, scheme):
    show(chromium, page.local_url, width, scheme)
    eventually(lambda: chromium.find_elements("css selector", "#pictures figure > img"))
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    ground = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in ground[4:-1].split(",")) < 150) == (scheme == "dark")
    unnamed = """
      const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.title
        || e.labels?.length || e.textContent.trim();
      return [...document.querySelectorAll("button, input:not([type=file]), textarea, select")]
        .filter(e => e.offsetParent && !named(e)).map(e => e.outerHTML.slice(0, 200))"""
    assert chromium.execute_script(unnamed) == []
    assert chromium.execute_script("return [...document.images].filter(i => !i.hasAttribute('alt')).length") == 0


def test_a_keyboard_steps_and_moves_the_threshold(chromium, page):
    from selenium.webdriver import Keys

    show(chromium, page.local_url)
    eventually(lambda: chromium.find_elements("css selector", "#pictures figure > img"))
    first = text(chromium, "verdict")
    chromium.find_element("id", "next").send_keys(Keys.ENTER)
    eventually(lambda: text(chromium, "verdict") != first)
    before = text(chromium, "verdict").split("threshold")[1]
    slider = chromium.find_element("css selector", "#threshold input[type=range]")
    for _ in range(3):
        slider.send_keys(Keys.ARROW_RIGHT)
    eventually(lambda: text(chromium, "verdict").split("threshold")[1] != before)
    mark = chromium.find_element("css selector", "#mark input")
    mark.send_keys(Keys.SPACE)
    eventually(lambda: "marked as" in text(chromium, "verdict"))
