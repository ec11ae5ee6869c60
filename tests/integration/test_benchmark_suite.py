# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A real suite of two tiny models: killed and resumed, on Ray, against ``anomalib test`` and scikit-learn."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from anomalib_vmpfd.benchmark.cli import main

# Columns that time and place do not change.
SAME = (
    "model", "dataset", "category", "seed", "status", "image_AUROC", "image_AP", "image_F1Score", "pixel_AUROC",
    "pixel_AP", "pixel_F1Score", "pixel_IoU", "AUPRO", "threshold", "pixel_threshold", "train_steps", "parameters",
    "flops", "val_split", "image_size", "train_images", "test_images", "settings",
)  # fmt: skip
SUITE = """
suite: tiny
seeds: [0, 1]
threads: 1
trainer: {accelerator: cpu, max_epochs: 1}
speed: {warmup: 1, repeats: 3, batch_repeats: 1}
keep_checkpoints: true
models:
  - label: Padim
    model: anomalib.models.Padim
    args: &small
      pre_trained: false
      backbone: resnet18
      layers: [layer1, layer2]
      pre_processor:
        class_path: anomalib.pre_processing.PreProcessor
        init_args: {transform: {class_path: torchvision.transforms.v2.Resize, init_args: {size: [64, 64]}}}
  - label: Broken
    model: Padim
    args: {pre_trained: false, layers: [no_such_layer]}
  - label: Patchcore
    model: Patchcore
    args: {<<: *small, coreset_sampling_ratio: 0.05}
datasets:
  - name: SampleParts
    data: MVTecAD
    categories: [washer]
    gallery: true
    args:
      root: "{root}"
      category: "{category}"
      seed: "{seed}"
      train_batch_size: 16
      eval_batch_size: 64
      num_workers: 0
      val_split_mode: from_train
      val_split_ratio: 0.2
"""


def rows(folder: Path) -> list[dict[str, str]]:
    table = folder / "tiny" / "results.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(folder: Path) -> list[dict[str, str]]:
    return [{name: row[name] for name in SAME} for row in rows(folder)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's file."""
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def parts(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a third of the sample parts, for speed."""
    root = tmp_path_factory.mktemp("parts")
    for file in sorted((sample_root / "washer").rglob("*.png")):
        if int(file.stem[:3]) % 3 == 0:
            target = root / file.relative_to(sample_root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return root


@pytest.fixture(scope="module")
def whole(config: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a suite that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole")
    assert main(["--config", str(config), "--root", str(parts), "--output", str(output)]) == 1, "one model fails"
    return output


def test_every_run_is_a_row_and_a_failure_is_one_too(whole):
    statuses = {(row["model"], row["seed"]): row["status"] for row in rows(whole)}
    assert len(statuses) == 6
    for (model, _), status in statuses.items():
        assert (status == "ok") == (model != "Broken")
        assert model != "Broken" or status.startswith("failed: ValueError: ")
    for row in rows(whole):
        if row["status"] == "ok":
            measured = [name for name, value in row.items() if value and name not in {"commit"}]
            # a copy outside its repository has no commit, and these images are too small for AUPIMO
            assert set(row) - set(measured) <= {"commit", "AUPIMO"}
            assert all(0 <= float(row[name]) <= 1 for name in row if name.startswith(("image_A", "image_F", "pixel_A")))
            assert float(row["latency_ms"]) > 1000 / float(row["throughput_ips"]) / 3
            assert float(row["peak_memory_mb"]) >= float(row["base_memory_mb"]) > 100
    seeds = {row["seed"]: row["image_AUROC"] + row["threshold"] for row in rows(whole) if row["model"] == "Padim"}
    assert seeds["0"] != seeds["1"], "the seed reaches the model's construction"
    for name in ("report.md", "report.html"):
        assert "Patchcore" in (whole / "tiny" / name).read_text(encoding="utf-8")


def test_nothing_is_measured_twice_unless_asked(whole, config, parts, capsys):
    before = (whole / "tiny" / "results.csv").read_bytes()
    arguments = ["--config", str(config), "--root", str(parts), "--output", str(whole), "--models", "Padim"]
    assert main(arguments) == 0
    assert "0 runs measured" in capsys.readouterr().out
    assert (whole / "tiny" / "results.csv").read_bytes() == before
    assert main([*arguments, "--seeds", "1", "--force"]) == 0
    assert "1 runs measured" in capsys.readouterr().out
    after = (whole / "tiny" / "results.csv").read_bytes()
    assert after != before
    assert len(after.splitlines()) == len(before.splitlines())


def _alive(mark: str) -> list[str]:
    """Processes that inherited a mark through their environment."""

    def environment(process: Path) -> bytes:
        try:
            return (process / "environ").read_bytes()
        except OSError:  # it has just ended, or is not ours
            return b""

    return [entry.name for entry in Path("/proc").glob("[0-9]*") if mark.encode() in environment(entry)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for orphans in /proc")
def test_a_killed_suite_ends_as_one_never_killed(whole, config, parts, tmp_path):
    arguments = ["--config", str(config), "--root", str(parts), "--output", str(tmp_path)]
    mark = f"BENCHMARK_TEST={uuid.uuid4()}"
    environment = os.environ | dict([mark.split("=")])
    code = "import sys; from anomalib_vmpfd.benchmark.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, *arguments], env=environment)
    deadline = time.monotonic() + 240
    while not any(row["status"] == "ok" for row in rows(tmp_path)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while _alive(mark):
        assert time.monotonic() < deadline, "a killed suite leaves nothing running"
        time.sleep(0.1)

    kept = [row for row in rows(tmp_path) if row["status"] == "ok"]
    assert 1 <= len(kept) < 4, "it was killed in the middle"
    assert main(arguments) == 1
    assert same(tmp_path) == same(whole)
    assert all(row in rows(tmp_path) for row in kept), "what was measured before the kill was not measured again"


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray")
def test_two_ray_workers_give_the_same_table(whole, config, parts, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    on_ray = tmp_path / "ray.yaml"
    on_ray.write_text(config.read_text(encoding="utf-8") + "runner: ray\nworkers: 2\n", encoding="utf-8")
    arguments = ["--config", str(on_ray), "--root", str(parts), "--output", str(tmp_path)]
    # one that ends well and one that fails, at a time: more of them would say no more about Ray
    assert main([*arguments, "--models", "Padim", "Broken", "--seeds", "0"]) == 1
    expected = [row for row in same(whole) if row["model"] in {"Padim", "Broken"} and row["seed"] == "0"]
    assert len(expected) == 2
    assert same(tmp_path) == expected


@pytest.fixture(scope="module")
def padim(whole: Path) -> tuple[dict[str, str], dict, Path]:
    """Row, scores and checkpoint of Padim, seed 0."""
    row = next(row for row in rows(whole) if (row["model"], row["seed"]) == ("Padim", "0"))
    (scores,) = (whole / "tiny" / "predictions").glob("Padim-SampleParts-washer-0-*.json")
    (checkpoint,) = (whole / "tiny" / "checkpoints").glob("Padim-SampleParts-washer-0-*.ckpt")
    return row, json.loads(scores.read_text(encoding="utf-8")), checkpoint


@pytest.fixture(scope="module")
def tested(padim, parts: Path, tmp_path_factory: pytest.TempPathFactory):
    """What anomalib's engine says about the checkpoint, as it is and without its normalisation."""
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from anomalib.metrics import AUPRO, AUROC, Evaluator
    from anomalib.models import Padim

    def test(normalise: bool, evaluator: Evaluator | bool) -> dict[str, float]:
        model = Padim(pre_trained=False, layers=["layer1", "layer2"], evaluator=evaluator, visualizer=False)
        datamodule = MVTecAD(
            parts,
            "washer",
            eval_batch_size=64,
            num_workers=0,
            val_split_mode="from_train",
            val_split_ratio=0.2,
            seed=0,
        )
        engine = Engine(
            accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path_factory.mktemp("engine")
        )
        state = torch.load(padim[2], weights_only=True)
        state["anomalib_components_enabled"]["evaluator"] = True
        state["anomalib_post_processor_config"]["enable_normalization"] = normalise
        if not normalise:
            state["state_dict"]["evaluator.test_metrics.2.fpr_limit"] = torch.tensor(0.3)  # a buffer of AUPRO
        checkpoint = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
        torch.save(state, checkpoint)
        return engine.test(model=model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)[0]

    ranking = [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_"),
        AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_"),
    ]
    return test(normalise=True, evaluator=True), test(normalise=False, evaluator=Evaluator(test_metrics=ranking))


def test_metrics_agree_with_anomalib_test_on_the_same_checkpoint(padim, tested):
    row, scores, checkpoint = padim
    standard, raw = tested
    assert float(row["image_F1Score"]) == pytest.approx(standard["image_F1Score"], abs=1e-6)
    assert float(row["pixel_F1Score"]) == pytest.approx(standard["pixel_F1Score"], abs=1e-6)
    assert float(row["image_AUROC"]) == pytest.approx(raw["image_AUROC"], abs=1e-5)
    assert float(row["pixel_AUROC"]) == pytest.approx(raw["pixel_AUROC"], abs=1e-5)
    assert float(row["AUPRO"]) == pytest.approx(raw["pixel_AUPRO"], abs=1e-5)
    # anomalib ranks the clamped scores; the raw ones explain its number to the last digit.
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    low, high = state["post_processor.image_min"].item(), state["post_processor.image_max"].item()
    clamped = np.clip((np.array(scores["scores"]) - scores["threshold"]) / (high - low) + 0.5, 0, 1)
    assert roc_auc_score(scores["labels"], clamped) == pytest.approx(standard["image_AUROC"], abs=1e-6)


def test_metrics_agree_with_scikit_learn_on_the_stored_scores(padim):
    row, scores, _ = padim
    assert float(row["image_AUROC"]) == pytest.approx(roc_auc_score(scores["labels"], scores["scores"]), abs=1e-6)
    assert float(row["image_F1Score"]) == pytest.approx(f1_score(scores["labels"], scores["decisions"]), abs=1e-6)
    assert scores["decisions"] == [int(score > float(row["threshold"])) for score in scores["scores"]]
