# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The models under contract, each small enough to be trained many times; one entry a model, or a preset of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anomalib.models.components import AnomalibModule
from toy import LocalContrast

import anomalib_vmpfd


@dataclass(frozen=True)
class Entry:
    """A model under contract.

    Attributes:
        model (str): Key of ``MODELS``, or the name of a class given by ``cls``.
        arguments (dict[str, Any]): Arguments of the small model; its images have 64 pixels a side.
        other (dict[str, Any]): Arguments besides, none of them a default, that give other scores.
        image_auroc (float): What it reaches on the sample parts after its recipe, at least.
        pixel_auroc (float): What its maps reach there, at least.
        peaks (float): Share of the defective parts whose brightest pixel lies at the defect, at least.
        bad_arguments (dict[str, Any]): Arguments that are refused by name.
        cls (Callable[..., AnomalibModule] | None): The class, where it is not one of ``MODELS``.
        bf16_difference (float): How far OpenVINO may move a map where it has bfloat16, over the map's range.
    """

    model: str
    arguments: dict[str, Any]
    other: dict[str, Any]
    image_auroc: float
    pixel_auroc: float
    peaks: float
    bad_arguments: dict[str, Any]
    cls: Callable[..., AnomalibModule] | None = field(default=None)
    bf16_difference: float = 0.1

    def build(self, **arguments: Any) -> AnomalibModule:
        """The small model, without pictures unless they are asked for."""
        return self.type(**({"visualizer": False} | self.arguments | arguments))

    @property
    def type(self) -> Callable[..., AnomalibModule]:
        """The model's class."""
        return self.cls or getattr(anomalib_vmpfd, self.model)


ENTRIES = {
    "VmpfdAd": Entry(
        "VmpfdAd",
        {
            "image_size": (64, 64),
            "density_args": {"num_components": 256},
        },
        {
            "image_size": (64, 96),
            "map_weights": (0.8, 0.2),
            "map_quantiles": (0.5, 0.9),
            "density_args": {"num_components": 64, "smoothing": 2.0},
            "image_fpr": 0.1,
            "image_score": "map",
        },
        0.8,
        0.8,
        0.5,
        {"density_args": {"sigma": 1.0}},
        bf16_difference=1e-5,
    ),
    "VmpfdAd-paper": Entry(
        "VmpfdAd",
        {
            "image_size": (64, 64),
            "descriptor": "pdn_small",
            "descriptor_args": {"grid": 4},
            "encoder_args": {"depth": 1, "dim": 32},
            "density": "predicted",
            "density_args": {"target": "self", "num_components": 3, "sigma_floor": 0.001, "train_cells": None},
            "reconstruction": "pixels",
            "map_weights": (0.5, 0.5),
            "image_score": "map",
            "lr_schedule": "constant",
            "epochs": 2,
        },
        {"map_weights": (0.8, 0.2), "reconstruction_args": {"smoothing": 1.0}, "lr": 3e-3},
        0.55,
        0.0,  # eight steps at this size teach its maps nothing
        0.0,
        {"reconstruction_args": {"code": 8}},
    ),
    "Mmaerec": Entry(
        "Mmaerec",
        {
            "image_size": (64, 64),
            "extractor": "timm/tf_efficientnet_lite2",  # the memories, which its default leaves out
            "extractor_args": {"layers": ["blocks.0", "blocks.1"]},
            "num_items": 10,
            "base_width": 8,
            "lr": 1e-2,
            "epochs": 8,
        },
        {
            "image_size": (64, 96),
            "shrinkage": 1.5,
            "attention": "se",
            "theta": 0.5,
            "mu": 2e-3,
            "map_quantiles": (0.5, 0.9),
            "image_fpr": 0.1,
            "epochs": 2,
        },
        0.6,
        0.6,
        0.2,
        {"extractor_args": {"stages": 3}},
    ),
    "Prn": Entry(
        "Prn",
        {"image_size": (64, 64), "channels": (8, 8, 16), "depth": 1, "lr": 5e-3, "epochs": 3},
        {
            "image_size": (64, 96),
            "channels": (4, 4, 8),
            "prototypes": 0.3,
            "target_area": "image",
            "lambda_focal": 2.0,
            "lr_schedule": "constant",
            "image_fpr": 0.1,
        },
        0.65,
        0.8,
        0.0,
        {"descriptor_args": {"stage": 1}},
    ),
    "LocalContrast": Entry(
        "LocalContrast", {"lr": 0.02, "epochs": 4}, {"cell": 4}, 0.6, 0.6, 0.0, {"sigma": 1.0}, LocalContrast, 0.2
    ),
}
