# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of speed from the files of ``perf/`` and of ``export_parity.py``, for ``fill_tables.py``."""

from pathlib import Path

import pandas as pd

from anomalib_vmpfd.benchmark.report.formatting import markdown

ROOT = Path(__file__).parents[2]


def latencies(rows: pd.DataFrame, file: str) -> str:
    """Latency of one image and throughput of sixteen, beside the default in the same run."""
    # matrix products and the bare PDN are there for the ratios
    models = rows[~rows.model.str.startswith(("matrix product", "PDN"))]
    own = models.latency_ms_median.iloc[0]
    lines = []
    for names, group in models.groupby(["model", "backend", "precision", "memory_format"], sort=False):
        batches = group.set_index("batch")
        sixteen = f"{batches.throughput_ips[16]:.1f}" if 16 in batches.index else "-"
        one = batches.latency_ms_median[1]
        lines.append([*names, f"{one:.0f}", f"{one / own:.1f}", sixteen])
    table = markdown(
        ["model", "backend", "precision", "layout", "ms, one image", "times the first row", "images/s, batch 16"],
        lines,
    )
    first = rows.iloc[0]
    return (
        f"{table}\n\n`results/speed/{file}`; {first.device} ({first.device_name}), {first.threads} threads, torch "
        f"{first.torch}, commit {first.commit[:7]}."
    )


def speed(rows: pd.DataFrame) -> str:
    """Latencies, and what was promised."""
    kept = pd.read_csv(ROOT / "results" / "speed" / "ratios.csv")
    ratios = markdown(
        ["measured", "", "at least", "on"],
        [
            [row.promise, f"{row.measured:.2f}", f"{row.at_least:g}", f"{row.device_name}, commit {row.commit[:7]}"]
            for row in kept.itertuples()
        ],
    )
    return f"{latencies(rows, 'latency.csv')}\n\n{ratios}\n\n`results/speed/ratios.csv`."


def growth(rows: pd.DataFrame) -> str:
    """Time and memory of every scan from 256 to 4,096 tokens, over linear growth."""
    first = rows.iloc[0]
    names = {
        "vim-chunked": "ViM block, PyTorch scan",
        "vim-c": "ViM block, C scan",
        "chunked": "PyTorch scan alone",
        "c": "C scan alone",
        "attention": "attention block",
    }
    columns = {"forward_ms": "forward", "forward_backward_ms": "forward and backward", "peak_memory_mb": "peak memory"}
    times = rows[rows.tokens.isin([256, 4096])].pivot_table(index="backend", columns="tokens", values=list(columns))
    lines = [
        [name, *(f"{times[column][4096][key] / times[column][256][key] / 16:.2f}" for column in columns)]
        for key, name in names.items()
    ]
    return (
        f"{markdown(['256 to 4,096 tokens, over linear', *columns.values()], lines)}\n\n"
        f"`results/speed/scan_growth.csv`; {first.cpu}, {first.threads} thread(s), median of {first.rounds} rounds, "
        f"torch {first.torch}, commit {first.commit[:7]}."
    )


def memory(rows: pd.DataFrame) -> str:
    """Peak memory of exports: a line for each size and number of images, a column for each runtime."""
    rows = rows[rows.what.str.startswith("VmpfdAd")]
    images = {"VmpfdAd, idle": "none, the model alone", "VmpfdAd, batch of 1": "1", "VmpfdAd, batch of 4": "4"}
    runtimes = {
        "onnxruntime": "ONNX Runtime",
        "onnxruntime, no arena": "without its arena",
        "openvino": "OpenVINO",
        "openvino, static shape": "OpenVINO, static shape",
    }
    peaks = rows.set_index(["image_size", "what", "runtime"]).peak_mb
    lines = [
        [f"{side:,} x {side:,}, {count}", *(f"{peaks[side, what, runtime]:,} MB" for runtime in runtimes)]
        for side in sorted(set(rows.image_size))
        for what, count in images.items()
    ]
    first = rows.iloc[0]
    return (
        f"{markdown(['pixels, images', *runtimes.values()], lines)}\n\n`results/speed/memory.csv`; "
        f"{'; '.join(sorted(set(rows.device_name)))}, {first.threads} thread(s), torch {first.torch}, commit "
        f"{', '.join(sorted({str(c)[:7] for c in rows.commit}))}."
    )


def parity(rows: pd.DataFrame) -> str:
    """The largest differences from PyTorch, and verdicts that differ, by processor, runtime, precision and export."""
    keys = ["device_name", "dataset", "runtime", "precision", "export"]
    lines = []
    for names, group in rows.groupby(keys, sort=False):
        worst = group.loc[group.verdicts_differ.idxmax()]
        lines.append([
            *names,
            f"{group.score_difference.max():.0e}",
            f"{group.map_difference.max():.0e}",
            f"{worst.verdicts_differ} of {worst.images}",
        ])
    header = ["processor", "images", "runtime", "precision", "size of the export", "score", "map", "other verdicts"]
    commits = ", ".join(sorted({str(c)[:7] for c in rows.commit}))
    return (
        f"{markdown(header, lines)}\n\nThe largest difference from PyTorch over sizes of images, batches of 1 and 4, "
        f"Pillow and OpenCV; maps over their range. `results/speed/export_parity.csv`, torch "
        f"{', '.join(sorted(set(rows.torch)))}, commit {commits}."
    )
