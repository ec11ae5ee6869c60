# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Foreign textures: pictures from a folder, or generated ones, so that nothing needs a download."""

import math
from pathlib import Path

import torch
from anomalib.data.utils import read_image
from anomalib.data.utils.generators.perlin import generate_perlin_noise
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import resize

from .draws import choice, uniform

CPU = torch.device("cpu")


def texture_files(folder: str | Path) -> list[Path]:
    """Pictures below a folder.

    Args:
        folder (str | Path): The folder, as that of the Describable Textures Dataset.

    Returns:
        list[Path]: The files, sorted.

    Raises:
        ValueError: If there are none.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        msg = f"There is no picture in textures={str(folder)!r}; leave it out for generated textures."
        raise ValueError(msg)
    return files


def random_texture(files: list[Path], size: tuple[int, int]) -> Tensor:
    """Draw a texture.

    Args:
        files (list[Path]): Pictures to choose from; without any a texture is generated.
        size (tuple[int, int]): Height and width in pixels.

    Returns:
        Tensor: Image in [0, 1] of shape ``(3, H, W)``.
    """
    if files:
        return resize(read_image(files[choice(len(files))], as_tensor=True), list(size), antialias=True).clamp(0, 1)
    return generated_texture(size)


def generated_texture(size: tuple[int, int]) -> Tensor:
    """Generate a texture of two colours: clouds, waves or grain; arguments and result as :func:`random_texture`."""
    field = (_clouds, _waves, _grain)[choice(3)](size)
    field = (field - field.min()) / (field.max() - field.min()).clamp_min(1e-6)
    one, other = torch.rand(2, 3, 1, 1)
    return one + (other - one) * field


def perlin(size: tuple[int, int], finest: int = 5) -> Tensor:
    """Perlin noise ``(H, W)`` with up to ``2**finest`` cells along either axis."""
    return generate_perlin_noise(*size, scale=(2 ** choice(finest + 1), 2 ** choice(finest + 1)), device=CPU)


def _clouds(size: tuple[int, int]) -> Tensor:
    return perlin(size) + 0.5 * perlin(size)


def _waves(size: tuple[int, int]) -> Tensor:
    """Stripes of any direction, bent by noise."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing="ij")
    angle = uniform(0, math.pi)
    along = math.cos(angle) * rows + math.sin(angle) * columns
    return torch.sin(2 * math.pi * (uniform(4, 40) * along + uniform(0, 1) * perlin(size, 3)))


def _grain(size: tuple[int, int]) -> Tensor:
    return torch.rand(size)
