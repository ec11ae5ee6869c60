# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables: means, deviations and published values, by hand."""

import csv
import statistics

import pytest
from by_hand import HOSTILE, Finished, row

from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.report.html_report import render
from anomalib_vmpfd.benchmark.report.markdown_report import report
from anomalib_vmpfd.benchmark.report.plots import metric_bars
from anomalib_vmpfd.benchmark.report.summary import load_published, summarise
from anomalib_vmpfd.benchmark.report.tables import cost_table, metric_table, not_run
from anomalib_vmpfd.benchmark.report.write import write_report
from anomalib_vmpfd.benchmark.results import Results
from anomalib_vmpfd.benchmark.suite import DatasetEntry, ModelEntry, Suite

BTAD = ["01", "02", "03"]


def cells(table: str) -> dict[str, dict[str, str]]:
    """Read a Markdown table without escaped bars."""
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: dict(zip(header[1:], line[1:], strict=True)) for line in lines}


def measured(tmp_path, values: dict[tuple[str, str, int], float], published: list[str]) -> tuple[Suite, Results]:
    suite = Suite(
        "s",
        [ModelEntry("Ours", "x"), ModelEntry("Other", "x")],
        [DatasetEntry("BTAD", "x", BTAD), DatasetEntry("Own", "x", ["part"])],
        published=published,
    )
    results = Results(tmp_path / "s")
    for (model, category, seed), value in values.items():
        key = RunKey("s", model, "Own" if category == "part" else "BTAD", category, seed)
        results.record(RunResult(row(key, image_AUROC=value)))
    return suite, results


def test_means_deviations_and_published_values(tmp_path):
    seeds = {("01", 0): 0.90, ("01", 1): 0.92, ("02", 0): 0.80, ("02", 1): 0.86, ("03", 0): 1.0, ("03", 1): 1.0}
    values = {("Ours", category, seed): value for (category, seed), value in seeds.items()}
    values |= {("Other", "01", 0): 0.99, ("Other", "02", 0): 0.5, ("Ours", "part", 0): 0.7, ("Other", "part", 0): 0.6}
    suite, results = measured(tmp_path, values, ["VMPFD-AD", "ViT-MCA"])
    table = cells(metric_table(summarise(suite, results), "image_AUROC"))

    assert table["BTAD / 01"]["Ours"] == f"91.0 ± {100 * statistics.stdev([0.90, 0.92]):.1f}"
    assert table["BTAD / 01"]["Other"] == "**99.0**"
    assert table["BTAD / 02"]["VMPFD-AD (published)"] == "82.9"
    deviation = statistics.stdev([(0.90 + 0.80 + 1) / 3, (0.92 + 0.86 + 1) / 3])
    assert table["BTAD mean"]["Ours"] == f"**91.3 ± {100 * deviation:.1f}**"
    assert table["BTAD mean"]["ViT-MCA (published)"] == "92.2"
    assert table["BTAD mean"]["Other"] == "-", "a mean over fewer categories would not compare"
    assert table["Own / part"]["VMPFD-AD (published)"] == "-"
    assert table["Mean of all"]["Ours"] == "**85.0**", "only seed 0 has all categories"


def test_published_mean_stands_only_beside_the_mean_of_all_its_categories(tmp_path):
    suite, results = measured(tmp_path, {("Ours", "01", 0): 0.9, ("Ours", "02", 0): 0.8}, ["VMPFD-AD"])
    suite.datasets = [DatasetEntry("BTAD", "x", ["01", "02"])]
    table = cells(metric_table(summarise(suite, results), "image_AUROC"))
    assert table["BTAD / 01"]["VMPFD-AD (published)"] == "97.7"
    assert table["BTAD mean"]["VMPFD-AD (published)"] == "-"


def test_costs_are_in_the_units_of_their_titles(finished: Finished):
    costs = cells(cost_table(summarise(finished.suite, finished.results)).replace("\\|", " "))["A"]
    assert costs["Parameters M"] == "8.00"
    assert costs["GFLOPs"] == "76.0"
    assert costs["Latency ms"] == "6.0"


def test_costs_of_two_kinds_of_devices_have_no_mean(tmp_path):
    suite, results = measured(tmp_path, {}, [])
    for seed, device, latency in ((0, "cpu", 50.0), (1, "cpu", 70.0), (2, "cuda", 3.0)):
        key = RunKey("s", "Ours", "Own", "part", seed)
        results.record(RunResult(row(key, device=device, latency_ms=latency)))
    summary = summarise(suite, results)
    costs = cells(cost_table(summary))
    assert (costs["Ours, cpu"]["Latency ms"], costs["Ours, cuda"]["Latency ms"]) == ("60.0", "3.0")
    assert summary.over_seeds().loc["Own", "part", "Ours"]["latency_ms", "mean"] == 60


def test_report_tells_failures_and_leaks_and_breaks_on_no_name(finished: Finished):
    key = RunKey("by_hand", "A", "Parts", "bolt", 0)
    finished.results.record(RunResult(row(key, val_split="same_as_test")))
    text = report(summarise(finished.suite, finished.results), finished.results, {})
    assert "too good" in text
    assert "failed: ValueError" in text
    assert HOSTILE not in text
    assert "<img" not in text
    bars = {line.replace("\\|", "").count("|") for line in text.splitlines() if "Parts / nut" in line}
    assert bars == {5, 4}, "three models and the title; differences to the first one"


def test_a_suite_of_failures_has_a_report_too(finished: Finished):
    for line in finished.results.rows():
        key = RunKey("by_hand", line["model"], line["dataset"], line["category"], 0)
        finished.results.record(RunResult({**key._asdict(), "status": "failed: MemoryError", "settings": ""}))
    markdown, page = (
        path.read_text(encoding="utf-8") for path in write_report(finished.suite, finished.results.folder)
    )
    assert "No run has finished, 9 failed." in markdown
    assert markdown.count("failed: MemoryError") == page.count("failed: MemoryError") == 9
    assert "plots/" not in markdown


def test_skipped_runs_are_told_in_a_line_and_leave_the_tables_alone(finished: Finished):
    before = summarise(finished.suite, finished.results)
    why = f"{HOSTILE}/vit.safetensors not found; put it there"
    for category in ("bolt", "nut", "other"):
        key = RunKey("by_hand", "Dinomaly", "Parts", category, 0)
        finished.results.record(RunResult({**key._asdict(), "status": f"skipped: {why}", "settings": ""}))
    after = summarise(finished.suite, finished.results)
    assert (after.models, after.categories, len(after.failed)) == (before.models, before.categories, len(before.failed))
    assert not_run(after) == [("Dinomaly", "3 runs", why)]
    markdown, page = report(after, finished.results, {}), render(after, finished.results, {}, [])
    assert markdown.count("Dinomaly") == page.count("Dinomaly") == 1
    assert "## Not run\n\n- Dinomaly, 3 runs: " in markdown
    assert HOSTILE not in markdown + page


def test_a_suite_that_was_skipped_whole_has_a_report_too(tmp_path):
    suite, results = measured(tmp_path, {}, [])
    key = RunKey(suite.suite, "Dinomaly", "Parts", "bolt", 0)
    results.record(RunResult({**key._asdict(), "status": "skipped: no file", "settings": ""}))
    for path in write_report(suite, results.folder):
        assert "no file" in path.read_text(encoding="utf-8")
    assert key not in results.done()


def test_results_of_older_versions_lack_columns_and_are_reported_and_kept(finished: Finished):
    table = finished.results.table
    rows = finished.results.rows()
    assert {line.pop("AUPIMO") for line in rows} == {"0.3", ""}
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    summary = summarise(finished.suite, finished.results)
    assert "AUPIMO" not in summary.metrics
    assert metric_table(summary, "AUPIMO") == ""
    for text in (report(summary, finished.results, {}), render(summary, finished.results, {}, [])):
        assert "AUPRO" in text
        assert "AUPIMO" not in text
    assert metric_bars(summary).axes[0].get_xticklabels()[-1].get_text() == "AUPRO"
    key = RunKey("by_hand", "A", "Parts", "bolt", 0)
    assert key in finished.results.done()
    finished.results.record(RunResult(row(key)))
    values = {(line["model"], line["category"]): line["AUPIMO"] for line in finished.results.rows()}
    assert (values["A", "bolt"], values["A", "nut"]) == ("0.3", "")
    assert "| 30.0 |" in metric_table(summarise(finished.suite, finished.results), "AUPIMO").replace("**", "")


def test_published_tables_are_whole():
    published = load_published()
    papers = {author: published[published.source.str.startswith(author)] for author in ("Liu", "Yang", "Zhang")}
    counts = {author: len(rows) for author, rows in papers.items()}
    assert counts == {"Liu": 16 * 5 + 13 * 5 + 4 * 6, "Yang": 16 * 10 + 4 * 2, "Zhang": 16 * 10 + 2 * 3 + 3 * 7}
    assert len(published) == sum(counts.values())
    prn = papers["Zhang"]
    assert not published.duplicated(["dataset", "category", "model"]).any()
    assert published[["image_AUROC", "pixel_AUROC"]].stack().dropna().between(0.4, 1).all()
    assert prn[["image_AUROC", "pixel_AUROC", "AUPRO", "pixel_AP"]].stack().between(0.01, 1).all()
    screw = published[(published.category == "screw") & (published.model == "VMPFD-AD")].iloc[0]
    assert (screw.image_AUROC, screw.pixel_AUROC) == (0.706, 0.937)
    screw = published[(published.category == "screw") & (published.model == "MMAERec")].iloc[0]
    assert (screw.image_AUROC, screw.pixel_AUROC, screw.pixel_AP, screw.AUPRO) == (0.899, 0.963, 0.409, 0.876)
    ten = published[(published.category == "mean") & (published.model == "PRN")].set_index("dataset")
    assert tuple(ten.loc["MVTecAD"][["image_AUROC", "pixel_AUROC", "AUPRO", "pixel_AP"]]) == (0.994, 0.99, 0.961, 0.786)
    assert ten.loc["BTAD"].pixel_AP == 0.54
    assert published.source.str.contains("table").all()


@pytest.mark.parametrize("metric", ["image_AUROC", "pixel_AUROC", "AUPRO", "pixel_AP"])
@pytest.mark.parametrize(
    ("dataset", "methods"),
    [
        ("MVTecAD", ["KDAD", "CFLOW", "DRAEM", "SSPCAB", "CFA", "RD4AD", "PatchCore (Zhang et al.)"]),
        ("MVTecAD", ["DevNet", "DRA", "PRN"]),
        ("VisA", ["FastFlow", "DRAEM", "RD4AD", "OmniAL", "VMPFD-AD"]),
        ("BTAD", ["P-SVDD", "PatchCore", "VMPFD-AD", "SPADE", "MMAERec"]),
        ("MVTecAD", ["MMAERec"]),
    ],
)
def test_printed_means_are_those_of_the_typed_categories(dataset, methods, metric):
    # Rows whose printed mean is not the mean of their own columns in the paper itself are not in the list.
    published = load_published()
    published = published[published.dataset == dataset]
    for method in methods:
        theirs = published[published.model == method].set_index("category")[metric]
        # the paper of VMPFD-AD has neither AUPRO nor AP
        assert theirs.isna().all() or theirs.drop("mean").mean() == pytest.approx(theirs["mean"], abs=0.0007), method


@pytest.mark.parametrize(
    ("metric", "methods"),
    [("pixel_AP", ["RIAD", "PaDiM", "MMAERec"]), ("AUPRO", ["AnoGAN", "NSA", "MMAERec"])],
)
def test_printed_means_of_the_other_metrics_are_those_of_the_typed_categories(metric, methods):
    published = load_published()
    for method in methods:
        theirs = published[(published.dataset == "MVTecAD") & (published.model == method)].set_index("category")[metric]
        assert theirs.drop("mean").mean() == pytest.approx(theirs["mean"], abs=0.0014), method
