# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""From what networks see to anomaly maps: the interface of a branch, location statistics, fusion."""
