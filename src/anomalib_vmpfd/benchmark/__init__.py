# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Side-by-side benchmark: one configuration, a row per run, one report.

``anomalib-vmpfd benchmark --config configs/benchmark/side_by_side.yaml`` trains and evaluates every model of a suite on
every data set, category and seed, and writes below ``results/<suite>/``:

* ``results.csv``, a row a run (:data:`anomalib_vmpfd.benchmark.records.COLUMNS`);
* ``predictions/``, image scores and curves of each run as JSON;
* ``report.md``, ``report.html`` and ``plots/``, made from the two above;
* ``maps/``, ``logs/`` and ``gallery.html``, which stay on the machine (the folder's ``.gitignore`` names them).

The work is done by :class:`anomalib.pipelines` jobs and runners; see :mod:`anomalib_vmpfd.benchmark.run`.
"""
