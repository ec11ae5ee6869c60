# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The threshold that a colour bar shows is the one that masks are made with."""

import torch
from anomalib.data import ImageBatch, InferenceBatch

from anomalib_vmpfd.anomaly.scale import bounded
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor
from anomalib_vmpfd.plotting.threshold import pixel_threshold


def test_the_threshold_at_the_colour_bar_is_the_one_of_the_masks():
    """On the scale of TAM, through the model's bounds and the post-processor's normalisation."""
    generator = torch.Generator().manual_seed(0)
    post_processor = RankPreservingPostProcessor(image_fpr=0.1, mask_fpr=0.02)
    normals = torch.randn(8, 40, 40, generator=generator)
    normals = InferenceBatch(pred_score=bounded(normals.amax((1, 2))), anomaly_map=bounded(normals))
    post_processor.calibrate([normals])
    tam = 3 * torch.randn(4, 40, 40, generator=generator)
    for sensitivity in (0.5, 0.6):
        post_processor.pixel_sensitivity = sensitivity
        batch = ImageBatch(image=torch.rand(4, 3, 40, 40), anomaly_map=bounded(tam), pred_score=torch.rand(4))
        post_processor.post_process_batch(batch)
        threshold = pixel_threshold(post_processor, calibrated=True)
        clear = (tam - threshold).abs() > 1e-4
        torch.testing.assert_close(batch.pred_mask.bool()[clear], (tam >= threshold)[clear])
