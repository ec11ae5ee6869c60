# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Distillation: real processes on a tiny folder, killed and continued; convolution and teacher against oracles."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.weights import load_pdn_state_dict


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    yield torch.set_num_threads(1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Eight images and a teacher with random weights."""
    root = tmp_path_factory.mktemp("distill")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for k in range(8):
        noise = Image.fromarray(rng.integers(0, 255, (12, 14, 3), dtype=np.uint8))
        noise.resize((84, 72), Image.Resampling.BICUBIC).save(root / "images" / f"{k}.png")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), root / "teacher.safetensors")
    return root


def _command(repository: Path, inputs: Path, out: Path, *extra: str) -> list[str]:
    options = {
        "--images": inputs / "images",
        "--out": out,
        "--steps": 6,
        "--teacher": "resnet10t",
        "--teacher-weights": inputs / "teacher.safetensors",
        "--crop": 64,
        "--batch": 2,
        "--held-out": 2,
        "--statistics-crops": 4,
        "--first-refit-crops": 0,
        "--refit-crops": 4,
        "--evaluate-seconds": 0,
        "--checkpoint-seconds": 0,
        "--threads": 1,
    }
    flat = [str(part) for pair in options.items() for part in pair]
    return [
        sys.executable,
        str(repository / "tools" / "weights" / "distill_pdn.py"),
        *flat,
        "--layers",
        "layer1",
        "layer2",
        *extra,
    ]


def _log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_killed_run_continues_to_the_same_weights(repository, inputs, tmp_path, monkeypatch):
    import distill_pdn

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = _command(repository, inputs, killed)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = killed / "log.jsonl", time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "pdn_small.safetensors").exists(), "it ended before the kill"
    interrupted = _log(killed)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "continuing at step" in done.stderr

    monkeypatch.setattr(sys, "argv", _command(repository, inputs, whole)[1:])
    distill_pdn.main()
    rows, expected = _log(killed), _log(whole)
    assert [row["step"] for row in rows] == [row["step"] for row in expected] == list(range(7))
    assert rows[: len(interrupted) - 1] == interrupted[:-1]
    for row, other in zip(rows, expected, strict=True):
        assert row["held_out"] == pytest.approx(other["held_out"], rel=1e-3)
    a, b = (load_file(run / "pdn_small.safetensors") for run in (killed, whole))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-2, atol=2e-3)
    # what it writes is what the package loads
    SmallPatchDescriptionNetwork(384).load_state_dict(load_pdn_state_dict(str(killed / "pdn_small.safetensors")))

    monkeypatch.setattr(sys, "argv", _command(repository, inputs, whole, "--lr", "1e-4")[1:])
    with pytest.raises(SystemExit, match="other settings"):
        distill_pdn.main()


def _distillation(inputs, tmp_path, monkeypatch, repository):
    import distill_pdn

    monkeypatch.setattr(sys, "argv", _command(repository, inputs, tmp_path)[1:])
    return distill_pdn, distill_pdn.Distillation(distill_pdn.parse_args())


def test_student_is_anomalibs_network(inputs, tmp_path, monkeypatch, repository):
    _, run = _distillation(inputs, tmp_path, monkeypatch, repository)
    run.initialise()
    run.params["conv4.weight"].normal_(std=0.02)
    network = SmallPatchDescriptionNetwork(384)
    network.load_state_dict(run.weights(run.params))
    image = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        torch.testing.assert_close(run.predict(run.params, image), network(image), rtol=1e-3, atol=1e-4)


def test_initialisation_gives_unit_variance(inputs, tmp_path, monkeypatch, repository):
    _, run = _distillation(inputs, tmp_path, monkeypatch, repository)
    run.initialise()
    w = run.weights(run.params)
    x = run.crops.batch(2, run.args.seed, 1, 0)
    assert 0.2 < run.hidden(w, x).square().mean() < 1.0  # half of a unit Gaussian survives the ReLU
    targets = torch.cat([run.targets(run.crops.batch(2, run.args.seed, 1, k)) for k in range(2)])
    torch.testing.assert_close(targets.mean(dim=(0, 2, 3)), torch.zeros(targets.shape[1]), atol=1e-3, rtol=0)
    alive = run.std.flatten() > 1e-3  # a random teacher has channels that never fire
    assert alive.sum() > 32
    torch.testing.assert_close(targets.std(dim=(0, 2, 3))[alive], torch.ones(int(alive.sum())), atol=1e-2, rtol=0)


def test_crops_are_a_function_of_their_key(inputs):
    import distill_pdn

    crops = distill_pdn.Crops(inputs / "images", 64, 2)
    again = distill_pdn.Crops(inputs / "images", 64, 2)
    torch.testing.assert_close(crops.batch(4, 0, 0, 7), again.batch(4, 0, 0, 7), rtol=0, atol=0)
    assert (crops.batch(4, 0, 0, 7) != crops.batch(4, 0, 0, 8)).any()
    assert not set(crops.train) & set(crops.held_out)


@pytest.mark.parametrize(("kernel", "size"), [(4, (26, 31)), (3, (20, 17)), (4, (7, 9))])
def test_winograd_is_the_convolution_and_its_gradient(kernel, size):
    import winograd

    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, *size, generator=rng).contiguous(memory_format=torch.channels_last)
    w, b = torch.randn(6, 5, kernel, kernel, generator=rng), torch.randn(6, generator=rng)
    results = []
    for function, dtype in ((winograd.conv2d, torch.float32), (F.conv2d, torch.float64)):
        leaves = [v.detach().clone().to(dtype).requires_grad_() for v in (x, w, b)]
        y = function(*leaves)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=dtype).view(y.shape))
        results.append([y, *(leaf.grad for leaf in leaves)])
    for mine, oracle in zip(*results, strict=True):
        assert (mine - oracle).norm() < 1e-5 * oracle.norm()


def test_teacher_is_sampled_at_the_centres_of_the_pdns_cells():
    from pdn_teacher import TeacherOnPdnGrid

    teacher = TeacherOnPdnGrid(timm.create_model("tf_efficientnet_lite0").eval(), ["blocks.0"])
    pixels = torch.arange(512.0)
    for stride in (2, 4, 8, 16):
        # a layer that measures the horizontal position of its cells' centres
        centres = pixels[: 512 // stride] * stride + stride - 0.5
        feature = centres.expand(1, 1, 512 // stride, -1)
        sampled = teacher.sample(feature, torch.Size([512, 512]))[0, 0, 5]
        torch.testing.assert_close(sampled, 2 * (4 * torch.arange(56.0) + 16.5), atol=1e-2, rtol=0)


def test_folded_batch_normalisation_changes_nothing():
    from pdn_teacher import fold_batch_norm

    model = timm.create_model("tf_efficientnet_lite0").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(x)
        torch.testing.assert_close(fold_batch_norm(model)(x), before, rtol=1e-3, atol=1e-3)
