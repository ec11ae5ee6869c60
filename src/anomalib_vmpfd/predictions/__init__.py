# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What a test or a prediction leaves behind in files: rows, regions, masks and maps."""
