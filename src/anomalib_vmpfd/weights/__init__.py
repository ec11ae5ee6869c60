# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pre-trained weights of the patch descriptors: shipped with the package, anomalib's own, or a local file."""

from .loading import PDN_CHANNELS, WeightsError, load_backbone_state_dict, load_pdn_state_dict

__all__ = ["PDN_CHANNELS", "WeightsError", "load_backbone_state_dict", "load_pdn_state_dict"]
