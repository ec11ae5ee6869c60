# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Write the tables of README.md, of the models' READMEs and of the docs from result files, between their markers.

    python tools/release/fill_tables.py            fill them
    python tools/release/fill_tables.py --check    fail where a page is not what the result files say

A marker is ``<!-- name -->``, closed by ``<!-- /name -->``: ``results`` comes from the suites side_by_side and paper,
``mmaerec`` from the first of them, ``ablation`` from development, ``peers`` from peers, side_by_side and development,
``multi-class`` from multi_class and development, ``multi-class-test`` from multi_class_test and side_by_side, and
``shapes``, ``robustness``, ``few-defects``, ``few-shot``, ``pollution``, ``paper-ablation``, ``mmaerec-ablation`` and
``prn-ablation`` from the suites of these names; ``speed``, ``speed-bf16``, ``parity``, ``memory`` and ``growth`` from
files in ``results/speed``. The figures in ``FIGURES`` are drawn as well.
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from accuracy_tables import (
    accuracy,
    few_defects,
    mmaerec,
    over_data_sets,
    peers,
    robustness,
    shared_model,
    suite_summary,
)
from speed_tables import growth, latencies, memory, parity, speed

from anomalib_vmpfd.benchmark.report.plots import draw

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "src/anomalib_vmpfd/models/vmpfd_ad/README.md",
    "src/anomalib_vmpfd/models/prn/README.md",
    "src/anomalib_vmpfd/models/mmaerec/README.md",
    "docs/export.md",
    "docs/few-defects.md",
)
FIGURES = {
    "docs/images/few_defects.svg": ("few_defects", "model_series.svg"),
    "docs/images/paper_losses.svg": ("paper", "losses_00_MVTecAD_screw.svg"),
}


def main() -> None:
    """Fill the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    ours = partial(accuracy, "side_by_side", published="VMPFD-AD", beside="paper")
    sources: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {
        "results": ("side_by_side/results.csv", ours),
        "paper-ablation": ("paper_ablation/results.csv", partial(accuracy, "paper_ablation")),
        "ablation": ("development/results.csv", partial(accuracy, "development")),
        "shapes": ("shapes/results.csv", partial(accuracy, "shapes")),
        "robustness": ("robustness/results.csv", robustness),
        "mmaerec": ("side_by_side/results.csv", mmaerec),
        "mmaerec-ablation": ("mmaerec_ablation/results.csv", partial(accuracy, "mmaerec_ablation")),
        "few-defects": ("few_defects/results.csv", partial(few_defects, "few_defects")),
        "few-shot": ("few_shot/results.csv", partial(over_data_sets, "few_shot")),
        "pollution": ("pollution/results.csv", partial(over_data_sets, "pollution")),
        "peers": ("peers/results.csv", peers),
        "multi-class": (
            "multi_class/results.csv",
            partial(shared_model, "multi_class", "development", {"VmpfdAd": "default", "Patchcore": "Patchcore"}),
        ),
        "multi-class-test": (
            "multi_class_test/results.csv",
            partial(shared_model, "multi_class_test", "side_by_side", {"VmpfdAd": "VmpfdAd", "Patchcore": "Patchcore"}),
        ),
        "prn-ablation": ("prn_ablation/results.csv", partial(few_defects, "prn_ablation")),
        "speed": ("speed/latency.csv", speed),
        "speed-bf16": ("speed/latency_native_bf16.csv", partial(latencies, file="latency_native_bf16.csv")),
        "parity": ("speed/export_parity.csv", parity),
        "memory": ("speed/memory.csv", memory),
        "growth": ("speed/scan_growth.csv", growth),
    }
    tables = {}
    for name, (file, table) in sources.items():
        path = ROOT / "results" / file
        tables[name] = table(pd.read_csv(path)) if path.exists() else "Not measured yet."
    for figure, (suite, name) in ({} if arguments.check else FIGURES).items():
        (ROOT / figure).write_text(draw(*suite_summary(suite))[name][1], encoding="utf-8")
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        filled = text
        for name, table in tables.items():
            block = f"<!-- {name} -->\n\n{table}\n\n<!-- /{name} -->"
            filled = re.sub(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _, b=block: b, filled, flags=re.DOTALL)
        if filled != text and arguments.check:
            stale.append(page)
        elif filled != text:
            path.write_text(filled, encoding="utf-8")
    if stale:
        sys.exit(f"{', '.join(stale)}: not what the result files say; run `python tools/release/fill_tables.py`.")


if __name__ == "__main__":
    main()
