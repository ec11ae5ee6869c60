# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A benchmark suite: the content of one file in ``configs/benchmark``, as typed data.

Strings in ``args``, ``data_args`` and ``weights`` may contain the placeholders ``{root}`` (data), ``{weights}`` (local
pre-trained weights), ``{bundled}`` (the weights in this package), ``{category}`` and ``{seed}``; a string that consists
of ``"{seed}"`` alone becomes the number.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import ArgumentParser


@dataclass
class ModelEntry:
    """A model of the suite.

    Attributes:
        label (str): Name in the tables; one class may appear several times under different labels.
        model (str): Name or import path of an ``AnomalibModule``, as for ``anomalib train --model``. Defaults to that
            of ``config``.
        config (str | None): A config of ``anomalib train``, relative to the suite file, whose model and trainer
            arguments are the defaults of ``args`` and ``trainer``. Defaults to ``None``.
        args (dict[str, Any]): Constructor arguments; nested ``class_path`` and ``init_args`` work as in anomalib.
        trainer (dict[str, Any]): Trainer arguments of this model, on top of the suite's.
        data_args (dict[str, Any]): Datamodule arguments that this model requires, e.g. ``train_batch_size: 1``.
        weights (dict[str, str]): State-dict files (``.pth``, ``.pt``, ``.safetensors``) by submodule, loaded after
            construction in place of a download, e.g. ``model.teacher: "{bundled}/pdn_small.safetensors"``.
    """

    label: str
    model: str = ""
    config: str | None = None
    args: dict = field(default_factory=dict)
    trainer: dict = field(default_factory=dict)
    data_args: dict = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)


@dataclass
class DatasetEntry:
    """A data set of the suite.

    Attributes:
        name (str): Name in the tables; for names in ``published.csv`` the published values are shown alongside.
        data (str): Name or import path of an ``AnomalibDataModule``.
        args (dict[str, Any]): Constructor arguments, see the placeholders above.
        categories (list[str]): Categories, values of ``{category}``.
        gallery (bool): Whether the licence permits its pictures in a published report. Defaults to ``False``.
    """

    name: str
    data: str
    categories: list[str]
    args: dict = field(default_factory=dict)
    gallery: bool = False


@dataclass
class SpeedProtocol:
    """How latency and throughput are measured; both are medians over the repeats.

    Attributes:
        warmup (int): Untimed passes before the measurement.
        repeats (int): Timed passes of one image.
        batch_size (int): Batch size of the throughput measurement.
        batch_repeats (int): Timed passes of a batch.
    """

    warmup: int = 5
    repeats: int = 30
    batch_size: int = 16
    batch_repeats: int = 5


@dataclass
class Suite:
    """A benchmark suite, the content of one file in ``configs/benchmark``.

    Attributes:
        suite (str): Name of the suite and of its folder below the output folder.
        models (list[ModelEntry]): Models to compare.
        datasets (list[DatasetEntry]): Data sets with their categories.
        seeds (list[int]): Seeds; one run for each.
        root (str): Folder of the data, for ``{root}``.
        weights (str): Folder of local pre-trained weights, for ``{weights}``.
        trainer (dict[str, Any]): Trainer arguments of all models.
        threads (int | None): Threads of torch in a run. Defaults to ``None``: the default of torch.
        speed (SpeedProtocol): Protocol of the speed measurements.
        keep_checkpoints (bool): Keep every run's checkpoint in ``checkpoints/``. Defaults to ``False``.
        resume_trainings (bool): Keep an unfinished training's last epoch in ``trainings/`` and continue from it; for
            models whose resumed training equals an uninterrupted one, as those of this package. The code must be the
            same. Defaults to ``False``.
        published (list[str]): Methods of ``published.csv`` to compare the results with, or ``["all"]``.
        runner (Literal["serial", "parallel", "ray"]): Runs one after the other, in a pool of ``workers`` processes
            with a GPU each (``accelerator: gpu``), or as tasks of Ray. Concurrent runs on one processor distort the
            measured speed.
        workers (int): Processes of the pool, or concurrent runs of a local Ray instance. Defaults to ``1``.
        ray_address (str | None): Address of a Ray cluster to join. Defaults to ``None``: start a local instance.
    """

    suite: str
    models: list[ModelEntry]
    datasets: list[DatasetEntry]
    seeds: list[int] = field(default_factory=lambda: [0])
    root: str = "datasets"
    weights: str = "weights"
    trainer: dict = field(default_factory=dict)
    threads: int | None = None
    speed: SpeedProtocol = field(default_factory=SpeedProtocol)
    keep_checkpoints: bool = False
    resume_trainings: bool = False
    published: list[str] = field(default_factory=lambda: ["VMPFD-AD"])
    runner: Literal["serial", "parallel", "ray"] = "serial"
    workers: int = 1
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Reject names that collide in the results file or point outside the suite's folder."""
        for kind, names in (
            ("label", [model.label for model in self.models]),
            ("data set", [dataset.name for dataset in self.datasets]),
        ):
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                msg = f"Suite {self.suite}: {kind} {', '.join(repeated)} appears twice; give each its own name."
                raise ValueError(msg)
        if Path(self.suite).name != self.suite or self.suite.startswith("."):
            msg = f"Suite name {self.suite!r} must be a plain folder name, without separators."
            raise ValueError(msg)


def load_suite(path: str | Path) -> Suite:
    """Read a suite from a YAML file.

    Args:
        path (str | Path): The file.

    Returns:
        Suite: The suite, checked against the types above.

    Raises:
        ValueError: If a key is unknown, missing or of another type.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Suite, "suite_file")
    if not Path(path).is_file():
        msg = f"There is no suite file {path}; configs/benchmark/ holds examples."
        raise ValueError(msg)
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        config = parser.parse_object({"suite_file": content})
        suite = parser.instantiate_classes(config).suite_file
        suite.models = [_from_preset(model, Path(path).parent) for model in suite.models]
    except Exception as error:
        msg = f"{path} is not a suite: {error}"
        raise ValueError(msg) from error
    return suite


def _from_preset(model: ModelEntry, folder: Path) -> ModelEntry:
    """Complete a model's entry with the config of ``anomalib train`` that it names."""
    preset = {}
    if model.config is not None:
        preset = yaml.safe_load((folder / model.config).read_text(encoding="utf-8"))
    start = preset.get("model", {})
    if not (name := model.model or start.get("class_path", "")):
        msg = f"model {model.label} needs a class in `model`, or a `config` that names one."
        raise ValueError(msg)
    args, trainer = start.get("init_args", {}) | model.args, preset.get("trainer", {}) | model.trainer
    return replace(model, model=name, args=args, trainer=trainer)
