# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A local page to inspect parts with: images, heatmaps, thresholds, errors."""
