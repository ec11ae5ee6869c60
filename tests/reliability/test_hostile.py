# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Files from a stranger: nothing in them runs, and what they lack is said."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import tiny
from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.benchmark.cli import main as benchmark
from anomalib_vmpfd.benchmark.records import RunKey, RunResult
from anomalib_vmpfd.benchmark.results import Results, ResultsError
from anomalib_vmpfd.benchmark.run.build import use_local_weights
from anomalib_vmpfd.engine.checkpoint_io import CheckpointError
from anomalib_vmpfd.weights import WeightsError, load_pdn_state_dict


class Attack:
    """Leaves a folder behind as soon as a pickle of it is trusted."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


WRITERS = {"torch.save": torch.save, "a plain pickle": plain_pickle}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_code_in_weights_is_not_run(writer, suffix, mark, tmp_path, case):
    path = tmp_path / f"weights{suffix}"
    WRITERS[writer]({"conv1.bias": Attack(mark)}, path)
    with pytest.raises(WeightsError, match=r"weights.*cannot be read as weights.*without code") as error:
        load_pdn_state_dict(str(path))
    model = tiny.model(descriptor="pdn_small")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        use_local_weights(model, {"model.descriptor.network": str(path)})
    case(f"code in {suffix} by {writer}", "refused, not run", str(error.value).replace(str(tmp_path), ""))
    assert not mark.exists()


def test_code_in_weights_of_a_timm_backbone_is_not_run(mark, parts, tmp_path, case):
    path = tmp_path / "backbone.pth"
    torch.save({"conv_stem.weight": Attack(mark)}, path)
    with pytest.raises(WeightsError, match=r"backbone\.pth") as error:
        tiny.engine(tmp_path / "out").fit(
            tiny.model(descriptor_args={"weights": str(path)}), datamodule=tiny.data(parts)
        )
    case("code in the weights of a backbone", "refused, not run", str(error.value).replace(str(tmp_path), "")[:300])
    assert not mark.exists()


PLACES = {
    "hyperparameters": lambda state, attack: state["hyper_parameters"].update(seed=attack),
    "weights": lambda state, attack: state["state_dict"].update(extra=attack),
    "optimizer": lambda state, attack: state["optimizer_states"].append(attack),
}


@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_checkpoint_is_not_run(place, trained, parts, mark, tmp_path, case):
    path = tmp_path / "model.ckpt"
    state = torch.load(trained[1], weights_only=True)
    PLACES[place](state, Attack(mark))
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read.*nothing was run from it") as error:
        VmpfdAd.load_from_checkpoint(path)
    runner = tiny.engine(tmp_path / "out")
    for use in (runner.test, runner.fit):
        with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read"):
            use(tiny.model(), datamodule=tiny.data(parts), ckpt_path=path)
    case(f"code in a checkpoint's {place}", "refused, not run", str(error.value).replace(str(tmp_path), "")[:260])
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_named(share, trained, parts, tmp_path, case):
    path = tmp_path / "model.ckpt"
    content = trained[1].read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read as a checkpoint: it is truncated") as error:
        VmpfdAd.load_from_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read"):
        tiny.engine(tmp_path / "out").test(tiny.model(), datamodule=tiny.data(parts), ckpt_path=path)
    message = str(error.value).replace(str(tmp_path), "")[:260]
    case(f"checkpoint cut to {share:.0%}", "one error names file and cure", message)


def test_a_checkpoint_with_a_flipped_bit_is_noticed(trained, tmp_path, case):
    content = bytearray(trained[1].read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 1
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read") as error:
        VmpfdAd.load_from_checkpoint(tmp_path / "model.ckpt")
    case("checkpoint with a flipped bit", "one error names the file", str(error.value).replace(str(tmp_path), "")[:260])


def test_a_checkpoint_is_plain_data_that_anyone_may_inspect(trained):
    assert torch.serialization.get_unsafe_globals_in_checkpoint(trained[1]) == []


def test_code_in_a_suite_file_is_not_run(mark, tmp_path, case, capsys):
    config = tmp_path / "suite.yaml"
    config.write_text(f"suite: !!python/object/apply:os.mkdir ['{mark}']\nmodels: []\ndatasets: []\n", encoding="utf-8")
    assert benchmark(["--config", str(config), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "suite.yaml is not a suite" in said
    assert not mark.exists()
    case("code in a suite's YAML", "refused, not run", said.replace(str(tmp_path), "")[:260])


@pytest.mark.parametrize("suite", ["../elsewhere", "/tmp/elsewhere", "..", "a/b"])
def test_a_suite_cannot_write_outside_its_folder(suite, tmp_path, capsys):
    config = tmp_path / "suite.yaml"
    config.write_text(yaml.safe_dump({"suite": suite, "models": [], "datasets": []}), encoding="utf-8")
    assert benchmark(["--config", str(config), "--output", str(tmp_path / "out" / "deep")]) == 2
    assert "must be a plain folder name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def results(folder: Path) -> tuple[Results, RunKey]:
    key = RunKey("s", "A", "d", "c", 0)
    held = Results(folder)
    row = {**key._asdict(), "status": "ok", "settings": "x", "image_AUROC": 0.5}
    held.record(RunResult(row, {"scores": [1.0]}, {"maps": torch.zeros(2, 2).numpy()}))
    return held, key


DAMAGE = {
    "cut in a row": lambda content: content[:-9],
    "not text": lambda content: content[:40] + b"\xff\xfe" + content[40:],
    "an open quote": lambda content: content + b'"s,A,d,c,1,ok',
    "no seed": lambda content: content.replace(b",0,ok", b",zero,ok"),
    "another table": lambda _content: b"a,b\n1,2\n",
    "zeroes": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_results_file_is_named_and_never_overwritten(damage, tmp_path, case):
    held, key = results(tmp_path)
    broken = DAMAGE[damage](held.table.read_bytes())
    held.table.write_bytes(broken)
    with pytest.raises(ResultsError, match=r"results\.csv is damaged.*Restore it, or move it away") as error:
        held.record(RunResult({**key._asdict(), "status": "ok", "settings": "x", "seed": 1}))
    case(f"results file: {damage}", "one error; the file stays", str(error.value).replace(str(tmp_path), ""), "yes")
    assert held.table.read_bytes() == broken


def test_damaged_predictions_and_maps_are_named(tmp_path, mark, case):
    held, key = results(tmp_path)
    (scores,), (maps,) = (tmp_path / "predictions").iterdir(), (tmp_path / "maps").iterdir()
    scores.write_bytes(scores.read_bytes()[:-3])
    with pytest.raises(ResultsError, match=r"\.json is damaged"):
        held.predictions(key)
    whole = maps.read_bytes()
    for content in (whole[:-30], b"", pickle.dumps(Attack(mark))):
        maps.write_bytes(content)
        with pytest.raises(ResultsError, match=r"\.npz is damaged") as error:
            held.maps(key)
    case("code in a heatmap file", "refused, not run", str(error.value).replace(str(tmp_path), "")[:260])
    assert not mark.exists()


def test_a_huge_claim_in_a_safetensors_header_costs_no_memory(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_pdn_state_dict(str(path))


def test_a_config_reaches_only_classes_of_the_expected_kind(mark, tmp_path, case):
    """jsonargparse imports a class path, and calls it only if it is a subclass of what the argument takes."""
    from anomalib.cli.cli import AnomalibCLI

    config = tmp_path / "config.yaml"
    model = {"class_path": "os.mkdir", "init_args": {"path": str(mark)}}
    config.write_text(yaml.safe_dump({"model": model, "data": {"class_path": "MVTec"}}), encoding="utf-8")
    with pytest.raises(SystemExit):
        AnomalibCLI(args=["train", "--config", str(config)], run=False)
    assert not mark.exists()
    case("config naming os.mkdir as the model", "refused, not called")
