# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Suite files: what a run is made of, and what is refused with a sentence."""

from pathlib import Path

import pytest

from anomalib_vmpfd.benchmark.cli import main
from anomalib_vmpfd.benchmark.records import RunKey
from anomalib_vmpfd.benchmark.run.spec import runs
from anomalib_vmpfd.benchmark.suite import load_suite

SUITE = """
suite: two
root: /data
seeds: [3, 4]
trainer: {max_epochs: 5, accelerator: cpu}
models:
  - label: Plain
    model: Padim
    args:
      pre_processor: {class_path: some.PreProcessor, init_args: {size: [64, 64]}}
  - label: Single
    model: other.package.Model
    args: {folder: "{root}/natural", seed: "{seed}"}
    trainer: {max_epochs: 1}
    data_args: {train_batch_size: 1}
    weights: {model.teacher: "{bundled}/teacher.pth"}
datasets:
  - name: MVTecAD
    data: MVTecAD
    categories: [screw, "01"]
    args: {root: "{root}/mvtec", category: "{category}", seed: "{seed}", train_batch_size: 8}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_runs_are_spelled_out_in_full(tmp_path):
    specs = list(runs(load_suite(write(tmp_path, SUITE))))
    assert [spec.key for spec in specs[:3]] == [
        RunKey("two", "Plain", "MVTecAD", "screw", 3),
        RunKey("two", "Single", "MVTecAD", "screw", 3),
        RunKey("two", "Plain", "MVTecAD", "01", 3),
    ]
    assert len(specs) == 8
    plain, single = specs[2], specs[3]
    assert plain.args == {"pre_processor": {"class_path": "some.PreProcessor", "init_args": {"size": [64, 64]}}}
    assert plain.data_args == {"root": "/data/mvtec", "category": "01", "seed": 3, "train_batch_size": 8}
    assert plain.trainer == {"max_epochs": 5, "accelerator": "cpu"}
    assert single.args == {"folder": "/data/natural", "seed": 3}
    assert single.data_args["train_batch_size"] == 1
    assert single.trainer["max_epochs"] == 1
    assert Path(single.weights["model.teacher"]).parent.joinpath("SHA256SUMS").is_file()


def test_settings_know_what_was_asked_but_not_where_the_data_lie(tmp_path):
    settings = {spec.key: spec.settings for spec in runs(load_suite(write(tmp_path, SUITE)))}
    elsewhere = load_suite(write(tmp_path, SUITE.replace("root: /data", "root: /elsewhere")))
    assert {spec.key: spec.settings for spec in runs(elsewhere)} == settings
    longer = load_suite(write(tmp_path, SUITE.replace("max_epochs: 5", "max_epochs: 6")))
    changed = {spec.key.model for spec in runs(longer) if spec.settings != settings[spec.key]}
    assert changed == {"Plain"}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (("seeds: [3, 4]", "sedes: [3]"), "sedes"),
        (("suite: two", ""), "suite"),
        (("seeds: [3, 4]", "seeds: [three]"), "three"),
        (("    trainer: {max_epochs: 1}", "    trainers: {max_epochs: 1}"), "trainers"),
        (("label: Single", "label: Plain"), "Plain appears twice"),
        (("suite: two", "suite: ../two"), "plain folder name"),
        (("models:", "models: ["), "suite.yaml is not a suite"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_reason(tmp_path, capsys, change, hint):
    path = write(tmp_path, SUITE.replace(*change))
    assert main(["--config", str(path), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert hint in error
    assert str(path) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--models", "Padim"], "no model Padim; it has Plain, Single"),
        (["--categories", "screws"], "no category screws; it has 01, screw"),
        (["--report-only"], "no results"),
    ],
)
def test_wrong_arguments_name_what_there_is(tmp_path, capsys, arguments, hint):
    path = write(tmp_path, SUITE)
    assert main(["--config", str(path), "--output", str(tmp_path / "out"), *arguments]) == 2
    assert hint in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
