# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Data of the plugin: the ``MVTec`` datamodule and generated sample parts."""
