# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Networks and layers that more than one model can be built of, and the geometry of their feature maps."""
