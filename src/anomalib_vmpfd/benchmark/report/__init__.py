# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Report a suite: summarise its results as tables, plots, a gallery, Markdown and HTML."""
