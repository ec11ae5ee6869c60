# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Load weights of patch descriptors without running code from the file, and check them before use.

Shipped files are float16 safetensors, listed with their SHA-256 in ``SHA256SUMS`` beside them (``README.md`` is their
card). Other safetensors files and PyTorch files (``weights_only=True``) are checked for keys, shapes and finite values.
"""

import hashlib
import logging
import tempfile
from importlib import resources
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load, load_file
from torch import Tensor

logger = logging.getLogger(__name__)

BUNDLED_PDN = "pdn_small.safetensors"
BUNDLED_BACKBONE = "efficientnet_lite2.safetensors"
PDN_CHANNELS = 384


class WeightsError(ValueError):
    """Weights that are missing, damaged or of another network; the message names the cure."""


def load_pdn_state_dict(source: str, size: Literal["small", "medium"] = "small") -> dict[str, Tensor]:
    """Load a patch description network (PDN) for anomalib's Small- or MediumPatchDescriptionNetwork(384).

    Args:
        source (str): "bundled" (shipped, no download), "official" (anomalib's EfficientAd teacher, downloaded once
            into anomalib's cache) or the path of a ``.safetensors``, ``.pth`` or ``.pt`` file.
        size (Literal["small", "medium"]): PDN-S or PDN-M.

    Returns:
        dict[str, Tensor]: State dict, float32, on the CPU.

    Raises:
        WeightsError: If the weights are missing, damaged, cannot be downloaded or belong to another network.
    """
    if size not in {"small", "medium"}:
        msg = f'PDN size "{size}" does not exist; choose "small" or "medium".'
        raise WeightsError(msg)
    if source == "bundled":
        if size == "medium":
            msg = "No pdn_medium is bundled; give weights='official' or a path, or take pdn_small."
            raise WeightsError(msg)
        state, origin = _read_bundled(BUNDLED_PDN), f"bundled file {BUNDLED_PDN}"
    elif source == "official":
        path = _official_file(size)
        state, origin = read_state_dict(path), str(path)
    else:
        state, origin = read_state_dict(Path(source)), source
    return _checked(state, _pdn_shapes(size), origin, f"the {size} PDN with {PDN_CHANNELS} channels")


def load_backbone_state_dict() -> dict[str, Tensor]:
    """Load the bundled EfficientNet-Lite2, cut after ``blocks.4``: stem and stages 0-4, timm's names.

    For timm's ``tf_efficientnet_lite2``, of which ``blocks`` is cut to its first five stages:

        >>> extractor = TimmFeatureExtractor("tf_efficientnet_lite2", ["blocks.1", "blocks.2", "blocks.4"], False)
        >>> extractor.feature_extractor.blocks = extractor.feature_extractor.blocks[:5]
        >>> extractor.feature_extractor.load_state_dict(load_backbone_state_dict())

    Returns:
        dict[str, Tensor]: State dict, float32, on the CPU. The network expects images scaled to [-1, 1].

    Raises:
        WeightsError: If the shipped file is missing or damaged.
    """
    return _as_float(_read_bundled(BUNDLED_BACKBONE))


def _as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def verify_bundled() -> dict[str, str]:
    """Compare the shipped files with their check sums.

    Returns:
        dict[str, str]: By file: its SHA-256, or what is wrong with it.
    """
    seen = {}
    for name, expected in _bundled_sums().items():
        try:
            _read_bundled(name)
            seen[name] = expected
        except WeightsError as error:  # noqa: PERF203 - every file is looked at
            seen[name] = str(error)
    return seen


def _bundled_sums() -> dict[str, str]:
    text = (resources.files(__package__) / "SHA256SUMS").read_text(encoding="utf-8")
    return dict(line.split()[::-1] for line in text.splitlines())


def _read_bundled(name: str) -> dict[str, Tensor]:
    """Read a shipped file, refusing any byte that differs from the released one."""
    try:
        data = (resources.files(__package__) / name).read_bytes()
    except OSError as error:
        msg = f"Bundled weights {name} are missing from the installed package; reinstall anomalib-vmpfd."
        raise WeightsError(msg) from error
    expected = _bundled_sums()[name]
    if hashlib.sha256(data).hexdigest() != expected:
        msg = f"Bundled weights {name} are damaged (SHA-256 differs from {expected}); reinstall anomalib-vmpfd."
        raise WeightsError(msg)
    return load(data)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or PyTorch file without executing code from it.

    Args:
        path (Path): A ``.safetensors`` file, else a PyTorch file.

    Returns:
        dict[str, Tensor]: What the file holds, on the CPU; a PyTorch file may hold other plain data.

    Raises:
        WeightsError: If the file is missing, damaged, or holds more than data.
    """
    if not path.is_file():
        msg = f'Weights "{path}" do not exist; give "bundled", "official" or the path of a file.'
        raise WeightsError(msg)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # a damaged file makes torch's unpickler raise nearly anything
        msg = (
            f"{path} cannot be read as weights: it is truncated, or not a safetensors file or a PyTorch state dict "
            "without code; save it again or get a fresh copy."
        )
        raise WeightsError(msg) from error


def _official_file(size: str) -> Path:
    """Path of anomalib's EfficientAd teacher, downloaded on first use.

    anomalib would extract an archive that an interrupted download left behind without checking it, so it works in a
    temporary folder here, and only a complete, verified result is moved into the cache.
    """
    from anomalib.data.utils import download_and_extract
    from anomalib.models.image.efficient_ad.lightning_model import WEIGHTS_DOWNLOAD_INFO as INFO
    from anomalib.utils.path import get_pretrained_weights_dir

    cache = get_pretrained_weights_dir()
    folder = cache / "efficientad_pretrained_weights"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as part:
            try:
                download_and_extract(Path(part), INFO)
                (Path(part) / folder.name).rename(folder)
            except (OSError, ValueError, RuntimeError) as error:
                if not folder.is_dir():  # else another process was first
                    msg = (
                        f"Official PDN weights could not be downloaded from {INFO.url} (sha256 {INFO.hashsum}): "
                        f'{error}; use "bundled" or the path of a local file instead.'
                    )
                    raise WeightsError(msg) from error
    return folder / f"pretrained_teacher_{size}.pth"


def _pdn_shapes(size: str) -> dict[str, torch.Size]:
    from anomalib.models.image.efficient_ad.torch_model import (
        MediumPatchDescriptionNetwork,
        SmallPatchDescriptionNetwork,
    )

    network = SmallPatchDescriptionNetwork if size == "small" else MediumPatchDescriptionNetwork
    with torch.device("meta"):
        return {name: value.shape for name, value in network(PDN_CHANNELS).state_dict().items()}


def _checked(state: object, shapes: dict[str, torch.Size], origin: str, network: str) -> dict[str, Tensor]:
    """Return ``state`` in float32 if it has exactly the tensors of ``shapes``, all floating point and finite."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"{origin} is not a state dict of tensors; save `model.state_dict()` of {network}."
        raise WeightsError(msg)
    if wrong := sorted(set(state) ^ set(shapes)):
        msg = f"{origin} does not hold {network}: missing or unexpected {', '.join(wrong[:4])}; give its state dict."
        raise WeightsError(msg)
    for name, shape in shapes.items():
        value = state[name]
        if value.shape != shape or not value.is_floating_point():
            msg = (
                f"{origin} does not hold {network}: {name} is {value.dtype} {tuple(value.shape)} and not floating "
                f"point {tuple(shape)}; give weights of that network."
            )
            raise WeightsError(msg)
        if not value.isfinite().all():
            msg = f"{origin} holds values of {name} that are not finite; get a fresh copy of the weights."
            raise WeightsError(msg)
    return _as_float(state)
