# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Run a suite: build, train, test and measure every model in a process of its own."""
