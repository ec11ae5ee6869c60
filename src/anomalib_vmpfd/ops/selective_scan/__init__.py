# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Selective scan (S6), the recurrence of Mamba, with the interface of mamba-ssm on every device."""

from .dispatch import BACKENDS, selective_scan

__all__ = ["BACKENDS", "selective_scan"]
