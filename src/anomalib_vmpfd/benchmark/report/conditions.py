# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The conditions of the measurements: protocol, hardware and versions, in sentences."""

from .summary import Summary

PROTOCOL = (
    "Pre-processor, model and post-processor with transfers to the device and back, images at the model's input size."
)
MEMORY = (
    "Memory: peak of the process in training and prediction, before the metrics; on the CPU this includes "
    "the libraries. FLOPs: twice the multiply-adds of matrix products and convolutions for one image. Checkpoint "
    "without optimizer state."
)


def conditions(summary: Summary) -> list[str]:
    """Describe the conditions of the measurements in sentences.

    Args:
        summary (Summary): Results.

    Returns:
        list[str]: Sentences.
    """
    runs, speed = summary.runs, summary.suite.speed
    if runs.empty:
        return [f"No run has finished, {len(summary.failed)} failed."]

    def values(name: str) -> str:
        return ", ".join(sorted({value for value in runs[name].astype(str) if value}))

    splits = set(runs.val_split)
    leak = (
        "The validation split contains test images, so the threshold is fitted to them: these F1 and IoU are too good."
        if splits & {"same_as_test", "from_test"}
        else "No test image was used for training or for the threshold."
    )
    what = f"{len(runs)} runs, {len(summary.failed)} failed; seeds {values('seed')}; images {values('image_size')}; "
    where = f"Device {values('device')} ({values('device_name')}), {values('threads')} threads, "
    latency = f"Latency: median of {speed.repeats} passes of one image after {speed.warmup} for warm-up; "
    throughput = f"throughput: median of {speed.batch_repeats} passes of {speed.batch_size} images. "
    plugin = f"anomalib-vmpfd {values('anomalib_vmpfd_version')} (commit {values('commit') or 'unknown'})"
    libraries = f"torch {values('torch_version')}, lightning {values('lightning_version')}, Python "
    libraries += f"{values('python_version')}; measured {values('date')}."
    return [
        what + "± is the standard deviation over seeds.",
        where + f"precision {values('precision')}.",
        latency + throughput + PROTOCOL,
        MEMORY,
        "Ranking metrics come from raw scores and maps at the model's resolution.",
        f"F1 and IoU use the threshold the model set on its validation split ({', '.join(sorted(splits))}). {leak}",
        f"anomalib {values('anomalib_version')}, {plugin}, " + libraries,
    ]
