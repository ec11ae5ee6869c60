# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Side-by-side benchmark: one configuration, a row per run, one report.

``anomalib-vmpfd benchmark --config configs/benchmark/side_by_side.yaml`` trains and evaluates every model of a suite on
every data set, category and seed, and writes to ``results/<suite>/``:

* ``results.csv``, one row per run (:data:`anomalib_vmpfd.benchmark.records.COLUMNS`);
* ``predictions/``, image scores and curves of each run as JSON;
* ``report.md``, ``report.html`` and ``plots/``, made from the two above;
* ``maps/``, ``logs/`` and ``gallery.html``, which are not committed (see the folder's ``.gitignore``).

Runs are jobs of :mod:`anomalib.pipelines`, see :mod:`anomalib_vmpfd.benchmark.run`; the report is written by
:mod:`anomalib_vmpfd.benchmark.report`.
"""
