# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Two processes, on a CPU or on two GPUs, train, calibrate and score as one does.

The order of the images differs between one sampler and two, so the comparison takes one step an epoch, with all images
in the batch: the gradient that the processes agree on is then that of one process up to rounding, and so is all that
follows. That holds only if every process sees the same statistics, prototypes and held-out images.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_worker import IMAGES, run
from entries import ENTRIES
from state_comparison import BeforeTraining, assert_same_training
from torch import nn
from trainings import is_trained

import tiny

TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


@pytest.fixture(scope="module", params=["cpu", pytest.param("gpu", marks=TWO_GPUS)])
def trainings(request, entry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what one process and each of two knew at the end."""
    name = next(name for name, other in ENTRIES.items() if other is entry)
    output = tmp_path_factory.mktemp("distributed")
    root = tiny.normals(tiny.with_defects(output / "data"), IMAGES)
    worker = Path(__file__).with_name("distributed_worker.py")
    run(root, output, 1, name, request.param)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(worker), str(root), str(output), "2", name, request.param]
    subprocess.run(command, check=True, env=environment, timeout=300)
    return output


def test_every_process_ends_with_the_same_model(trainings):
    first, second = (torch.load(trainings / f"state-2-{rank}.pt") for rank in range(2))
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_two_processes_learn_and_calibrate_what_one_does(entry, trainings):
    alone, together = (torch.load(trainings / f"state-{devices}-0.pt") for devices in (1, 2))
    kinds = [json.loads(path.read_text()) for path in sorted(trainings.glob("kinds-*.json"))]
    assert len(kinds) == 3
    assert all(other == kinds[0] for other in kinds)
    assert set(kinds[0].values()) >= {"fitted", "calibrated"} | ({"trained"} if is_trained(entry.build()) else set())
    assert_same_training(together, alone, kinds[0])


def test_two_processes_reach_the_same_test_metrics(trainings):
    metrics = [json.loads((trainings / f"metrics-{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")]
    assert metrics[0]["image_AUROC"] != 0.5, "the scores differ"
    for other in metrics[1:]:
        assert other == pytest.approx(metrics[0], abs=2e-3)


@pytest.mark.parametrize(
    ("kind", "most", "too_much"),
    [("frozen", 0.0, 1e-6), ("fitted", 5e-5, 0.01), ("calibrated", 0.01, 0.1), ("trained", 0.2, 0.4)],
)
def test_the_comparison_notices_what_it_must(kind, most, too_much):
    expected = {"one": torch.rand(50, generator=torch.Generator().manual_seed(0)) + 1.0, "other": torch.ones(3)}
    kinds = {"one": kind, "other": "frozen"}
    assert_same_training(expected | {"one": expected["one"] * (1 + most)}, expected, kinds)
    with pytest.raises(AssertionError, match="one"):
        assert_same_training(expected | {"one": expected["one"] * (1 + too_much)}, expected, kinds)
    with pytest.raises(AssertionError):
        assert_same_training(expected, expected, {"one": kind})


def test_a_tensor_of_no_known_kind_is_an_error():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.backbone = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
            self.register_buffer("prototypes", torch.ones(2))
            self.register_buffer("quantiles", torch.zeros(2))
            self.model = nn.Module()
            self.model.register_buffer("quantiles", torch.zeros(2))

    model, before = Model(), BeforeTraining()
    before.on_train_batch_start(None, model, None, 0)
    with pytest.raises(AssertionError, match=r"model\.quantiles is calibrated"):
        before.kinds(model)  # listed, yet nothing sets it
    model.model.quantiles += 1
    known = {"weight": "trained", "backbone": "frozen", "prototypes": "fitted", "model.quantiles": "calibrated"}
    assert before.kinds(model) == known | {"quantiles": "fitted"}
    model.prototypes += 1
    with pytest.raises(AssertionError, match="prototypes is fitted"):
        before.kinds(model)  # set while training, yet not listed
