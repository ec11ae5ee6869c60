# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What every one-class model of this package shares in training: hold-out, calibration, thresholds, checkpoints."""
