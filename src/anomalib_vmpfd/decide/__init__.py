# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What is done with a trained model at the line: new thresholds, checks, a report of the machine."""
