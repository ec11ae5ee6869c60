# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD from plain data: which parts there are, and which of them read the encoder."""

from collections.abc import Mapping
from typing import Any

from anomalib_vmpfd.anomaly.branch import Branch
from anomalib_vmpfd.engine.arguments import build_part, check_choice
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .component_reconstruction import ComponentReconstruction
from .encoder import CnnTokenEncoder, TokenEncoder, VimTokenEncoder
from .predicted_mixture import PredictedMixture
from .prototype_density import PrototypeDensity
from .reconstruction import DescriptorReconstruction, PixelReconstruction
from .torch_model import ImageScore, VmpfdAdModel

ENCODERS: dict[str, type[TokenEncoder]] = {"vim": VimTokenEncoder, "cnn": CnnTokenEncoder}
DENSITIES: dict[str, type[Branch]] = {"prototypes": PrototypeDensity, "predicted": PredictedMixture}
RECONSTRUCTIONS: dict[str, type[Branch]] = {
    "components": ComponentReconstruction,
    "descriptors": DescriptorReconstruction,
    "pixels": PixelReconstruction,
}
DEFAULT_ENCODER = "vim"
DEFAULT_MAP_WEIGHTS = (0.7, 0.3)

Arguments = Mapping[str, Any] | None


def build_model(
    image_size: tuple[int, int],
    descriptor: str,
    descriptor_args: Arguments,
    encoder: str,
    encoder_args: Arguments,
    density: str | None,
    density_args: Arguments,
    reconstruction: str | None,
    reconstruction_args: Arguments,
    map_weights: tuple[float, float] = DEFAULT_MAP_WEIGHTS,
    image_score: ImageScore = "branches",
) -> VmpfdAdModel:
    """Build the model of figure 1, or an ablation of it.

    Args:
        image_size (tuple[int, int]): Height and width of the images in pixels.
        descriptor (str): Name of a :class:`PatchDescriptor`.
        descriptor_args (Mapping[str, Any] | None): Its further arguments.
        encoder (str): A key of ``ENCODERS``.
        encoder_args (Mapping[str, Any] | None): Arguments of that class.
        density (str | None): A key of ``DENSITIES``; ``None`` leaves the branch out (table 6).
        density_args (Mapping[str, Any] | None): Arguments of that class.
        reconstruction (str | None): A key of ``RECONSTRUCTIONS``; ``None`` leaves the branch out (table 6).
        reconstruction_args (Mapping[str, Any] | None): Arguments of that class.
        map_weights (tuple[float, float]): Weights of LAM and GAM in TAM.
        image_score (str): See :class:`VmpfdAdModel`.

    Returns:
        VmpfdAdModel: The model, not fitted.

    Raises:
        ValueError: If an argument is unknown, contradicts another, or nothing reads it.
    """
    if density is None and reconstruction is None:
        msg = "Both density and reconstruction are None; give one of them, or leave both at their defaults."
        raise ValueError(msg)
    for name, branch, arguments, branches in (
        ("density", density, density_args, DENSITIES),
        ("reconstruction", reconstruction, reconstruction_args, RECONSTRUCTIONS),
    ):
        if branch is not None:
            # before the encoder, which reads what is reconstructed and would be blamed
            check_choice(name, branch, branches)
        elif arguments:
            msg = f"{name}_args has no effect where {name} is None; leave it out."
            raise ValueError(msg)
    if tuple(map_weights) != DEFAULT_MAP_WEIGHTS and None in {density, reconstruction}:
        msg = f"map_weights={tuple(map_weights)} has no effect on a single branch; leave it out."
        raise ValueError(msg)

    described = build_part(
        "descriptor", descriptor, {descriptor: PatchDescriptor}, descriptor_args, descriptor, image_size
    )
    encodes = (reconstruction is not None and RECONSTRUCTIONS[reconstruction].reads_encoder) or (
        density == "predicted" and (density_args or {}).get("features", "fused") != "descriptor"
    )
    encoded: TokenEncoder | None = None
    if encodes:
        encoder_args = _with_reads(encoder_args, reconstruction)
        encoded = build_part("encoder", encoder, ENCODERS, encoder_args, image_size, described)
    elif encoder_args or encoder != DEFAULT_ENCODER:
        msg = f"Nothing reads the encoder where density={density!r} and reconstruction={reconstruction!r}; leave out "
        raise ValueError(msg + "encoder and encoder_args.")
    # the order of construction is that of the random draws
    parts = image_size, described, encoded
    rebuilt = reconstruction and build_part(
        "reconstruction", reconstruction, RECONSTRUCTIONS, reconstruction_args, *parts
    )
    likely = density and build_part("density", density, DENSITIES, density_args, *parts)
    return VmpfdAdModel(described, encoded, likely or None, rebuilt or None, map_weights, image_score)


def _with_reads(encoder_args: Arguments, reconstruction: str | None) -> dict[str, Any]:
    """The encoder reads what is reconstructed, and the paper's pixels where nothing is."""
    wanted = reconstruction if reconstruction in {"descriptors", "pixels"} else None
    reads = (encoder_args or {}).get("reads", wanted or "pixels")
    if wanted is not None and reads != wanted:
        msg = (
            f"encoder_args.reads={reads!r} contradicts reconstruction={reconstruction!r}, which gives back what the "
            "encoder reads; leave reads out."
        )
        raise ValueError(msg)
    return {**(encoder_args or {}), "reads": reads}


def check_contamination(contamination: float, leaves_one_out: bool) -> None:
    """Refuse a share that is none, or a model that cannot judge what it learnt.

    Raises:
        ValueError: If so.
    """
    if not 0 <= contamination < 0.5:
        msg = f"contamination={contamination} is the share of training images to leave out: from 0 to below 0.5."
        raise ValueError(msg)
    if contamination and not leaves_one_out:
        msg = (
            "contamination needs a model that judges every image by what it learnt from the others: "
            "density='prototypes', reconstruction='components' (or one of them null) and held_out=0, as by default."
        )
        raise ValueError(msg)
