# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The runs of a suite: one model, data set, category and seed each, with all arguments filled in."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomalib_vmpfd.benchmark.records import RunKey
from anomalib_vmpfd.benchmark.suite import SpeedProtocol, Suite

BUNDLED = str(Path(__file__).resolve().parents[2] / "weights")
WEIGHT_FILES = (".safetensors", ".pth", ".pt")
LOCAL_FOLDER = "local-dir:"  # begins timm's name of a backbone in a folder


@dataclass
class RunSpec:
    """All arguments of one run, as plain data that can be sent to another process or machine.

    Attributes:
        key (RunKey): What identifies the run.
        model (str): Name or import path of the model.
        args (dict[str, Any]): Its constructor arguments.
        data (str): Name or import path of the datamodule.
        data_args (dict[str, Any]): Its constructor arguments.
        trainer (dict[str, Any]): Trainer arguments.
        weights (dict[str, str]): State-dict files by submodule.
        speed (SpeedProtocol): Protocol of the speed measurements.
        threads (int | None): Threads of torch.
        settings (str): Digest of the requested settings, independent of the folders of data and weights.
        checkpoint (str | None): Where the checkpoint is kept. Defaults to ``None``: not kept.
        training (str | None): File that an interrupted training continues from. Defaults to ``None``: it starts anew.
    """

    key: RunKey
    model: str
    args: dict[str, Any]
    data: str
    data_args: dict[str, Any]
    trainer: dict[str, Any]
    weights: dict[str, str]
    speed: SpeedProtocol
    threads: int | None
    settings: str
    checkpoint: str | None = None
    training: str | None = None

    @property
    def missing(self) -> list[str]:
        """list[str]: Local weights that the model needs and that are not there."""
        needed = dict.fromkeys([*self.weights.values(), *_local_weights(self.args.values())])
        return [path for path in needed if not Path(path).exists()]


def runs(suite: Suite, folder: Path | None = None) -> Iterator[RunSpec]:
    """List the runs of a suite, category by category, so that intermediate reports compare all models.

    Args:
        suite (Suite): The suite.
        folder (Path | None, optional): Folder of its results, for what the suite keeps. Defaults to ``None``: the
            working directory.

    Yields:
        RunSpec: One run.
    """
    for seed in suite.seeds:
        for dataset in suite.datasets:
            for category in dataset.categories:
                for model in suite.models:
                    key = RunKey(suite.suite, model.label, dataset.name, category, seed)
                    data_args = dataset.args | model.data_args
                    trainer = suite.trainer | model.trainer
                    names = {
                        "root": suite.root,
                        "weights": suite.weights,
                        "bundled": BUNDLED,
                        "category": category,
                        "seed": seed,
                    }
                    entry = [model.model, model.args, model.weights, dataset.data, data_args]
                    asked = [*entry, trainer, asdict(suite.speed), suite.threads]
                    settings = _digest(asked)
                    checkpoint, training = f"checkpoints/{key.stem}.ckpt", f"trainings/{key.stem}-{settings}.ckpt"
                    place = folder or Path()
                    yield RunSpec(
                        key=key,
                        model=model.model,
                        args=_fill(model.args, names),
                        data=dataset.data,
                        data_args=_fill(data_args, names),
                        trainer=trainer,
                        weights=_fill(model.weights, names),
                        speed=suite.speed,
                        threads=suite.threads,
                        settings=settings,
                        checkpoint=str(place / checkpoint) if suite.keep_checkpoints else None,
                        training=str(place / training) if suite.resume_trainings else None,
                    )


def _fill(value: Any, names: dict[str, Any]) -> Any:  # noqa: ANN401
    """Replace placeholders by their values, also in nested containers."""
    if isinstance(value, dict):
        return {key: _fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, names) for item in value]
    if isinstance(value, str):
        for name, content in names.items():
            if value == f"{{{name}}}":
                return content
            value = value.replace(f"{{{name}}}", str(content))
    return value


def _local_weights(values: Iterable[Any]) -> Iterator[str]:
    """Find the files and folders of weights among constructor arguments, also in nested containers."""
    for value in values:
        if isinstance(value, dict):
            yield from _local_weights(value.values())
        elif isinstance(value, list):
            yield from _local_weights(value)
        elif isinstance(value, str) and value.startswith(LOCAL_FOLDER):
            yield value.removeprefix(LOCAL_FOLDER)
        elif isinstance(value, str) and value.endswith(WEIGHT_FILES):
            yield value


def _digest(asked: list[Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
