# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD: patch feature distribution and visual-Mamba reconstruction."""

from .lightning_model import VmpfdAd
from .torch_model import VmpfdAdModel

__all__ = ["VmpfdAd", "VmpfdAdModel"]
