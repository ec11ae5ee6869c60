# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Whatever finite numbers come in: finite numbers come out, in the right order, whatever shares the batch."""

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from anomalib_vmpfd.anomaly.raw_map import RawMap
from anomalib_vmpfd.anomaly.scale import bounded, quantiles
from anomalib_vmpfd.engine.calibration import held_out_indices, threshold_at_fpr
from anomalib_vmpfd.engine.post_processor import RankPreservingPostProcessor
from anomalib_vmpfd.models.vmpfd_ad.loss import reconstruction_terms
from anomalib_vmpfd.nn.grid import pixel_grid
from anomalib_vmpfd.nn.mixture_density import Mixture, MixtureDensityHead
from anomalib_vmpfd.nn.principal_components import principal_components
from anomalib_vmpfd.nn.prototypes import Prototypes
from anomalib_vmpfd.ops.selective_scan import selective_scan

pytestmark = pytest.mark.numeric

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def floats(bound: float) -> st.SearchStrategy[float]:
    return st.floats(-float(np.float32(bound)), float(np.float32(bound)), width=32)


def tensors(shape, bound: float = 1e6) -> st.SearchStrategy[torch.Tensor]:
    return arrays(np.float32, shape, elements=floats(bound)).map(torch.from_numpy)


scales = st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e3, 1e6])


@quick
@given(
    seed=st.integers(0, 2**31), length=st.integers(1, 20), scale=scales, step=st.sampled_from([-40.0, 0.0, 5.0, 40.0])
)
def test_scan_is_finite_and_the_same_in_any_batch(seed, length, scale, step):
    generator = torch.Generator().manual_seed(seed)
    u, z = (scale * torch.randn(3, 4, length, generator=generator) for _ in range(2))
    delta = step + torch.randn(3, 4, length, generator=generator)
    a = -torch.rand(4, 2, generator=generator) * 16
    b, c = (torch.randn(3, 2, length, generator=generator) for _ in range(2))
    skip, bias = torch.randn(4, generator=generator), torch.randn(4, generator=generator)

    def scan(rows: list[int]) -> torch.Tensor:
        return selective_scan(
            u[rows], delta[rows], a, b[rows], c[rows], skip, z=z[rows], delta_bias=bias, delta_softplus=True
        )

    together = scan([0, 1, 2])
    assert together.isfinite().all()
    close = {"rtol": 1e-4, "atol": 1e-4 * max(1.0, float(together.abs().max()))}
    torch.testing.assert_close(scan([2, 0, 1]), together[[2, 0, 1]], **close)
    torch.testing.assert_close(torch.cat([scan([i]) for i in range(3)]), together, **close)


@quick
@given(
    log_pi=tensors((2, 3, 2, 2), 1e4),
    mu=tensors((2, 3, 5, 2, 2), 1e6),
    raw=tensors((2, 3, 5, 2, 2), 1e4),
    y=tensors((2, 5, 2, 2), 1e6),
)
def test_likelihood_is_finite_for_extreme_mixtures(log_pi, mu, raw, y):
    """Collapsed variances and weights, means far away: the logarithm of the sum keeps it finite."""
    head = MixtureDensityHead(4, 5, num_components=3)
    sigma = torch.nn.functional.softplus(raw) + head.sigma_floor
    mixture = Mixture(log_pi.log_softmax(1), mu, sigma)
    nll = head.nll(y, mixture)
    assert nll.isfinite().all()
    torch.testing.assert_close(head.nll(y.flip(0), Mixture(*(part.flip(0) for part in mixture))).flip(0), nll)


def fitted(cells: torch.Tensor, count: int = 8) -> Prototypes:
    prototypes = Prototypes(cells.shape[1], count)
    # each cell from an image of its own
    prototypes.fit(cells, torch.arange(len(cells)))
    return prototypes


@quick
@given(seed=st.integers(0, 2**31), count=st.integers(1, 40), spread=scales, far=scales)
def test_prototypes_are_finite_and_farther_is_more_anomalous(seed, count, spread, far):
    """Also where all normals are the same cell, or fewer than the prototypes."""
    torch.manual_seed(seed)
    centre = torch.randn(1, 6)
    normals = centre + spread * torch.randn(count, 6)
    prototypes = fitted(normals)
    y = centre.view(1, 6, 1, 1) + far * torch.randn(3, 6, 2, 2)
    score = prototypes(y)
    assert score.isfinite().all()
    assert (score >= 0).all()
    left_out = prototypes(normals.view(count, 6, 1, 1), torch.arange(count))
    assert left_out.isfinite().all(), "also where there is one image, or all prototypes are of one"
    torch.testing.assert_close(prototypes(y.flip(0)).flip(0), score, rtol=1e-4, atol=1e-4 * (1 + spread + far))
    outside = centre + 1e3 * (1 + spread) * torch.tensor([[1.0], [2.0], [4.0]]) * torch.nn.functional.normalize(
        torch.randn(1, 6)
    )
    ranked = prototypes(outside.view(3, 6, 1, 1)).flatten()
    assert ranked[0] < ranked[1] < ranked[2]


@quick
@given(value=floats(1e6))
def test_normals_that_are_all_the_same_are_at_distance_zero(value):
    cells = torch.full((20, 6), value)
    prototypes = fitted(cells)
    score = prototypes(cells[:4].T.reshape(1, 6, 2, 2))
    assert score.isfinite().all()
    assert score.max() <= 1e-3 * max(1.0, abs(value)) / prototypes.std.min()


@quick
@given(rows=tensors(st.tuples(st.integers(1, 12), st.integers(1, 12)), 1e6), count=st.integers(1, 6))
def test_components_are_orthonormal_or_zero_whatever_the_rows(rows, count):
    """Also where all rows are the same, or zero."""
    components = principal_components(rows, count)
    assert components.shape == (count, rows.shape[1])
    products = components @ components.T
    there = components.abs().amax(1) > 0
    torch.testing.assert_close(products, torch.diag(there.float()), rtol=0, atol=1e-3)


lists = st.lists(floats(1e30), min_size=1, max_size=60)


@quick
@given(values=lists, q=st.lists(st.floats(0, 1), min_size=1, max_size=4), parts=st.integers(1, 5))
def test_quantiles_lie_within_their_values_whatever_the_batches(values, q, parts):
    flat = torch.tensor(values)
    whole = quantiles([flat], q)
    assert ((whole >= flat.min()) & (whole <= flat.max())).all()
    split = [part for part in flat.flip(0).tensor_split(parts) if len(part)]
    torch.testing.assert_close(quantiles(split, q), whole)


@quick
@given(values=lists, fpr=st.floats(1e-4, 0.9999), seed=st.integers(0, 2**31))
def test_thresholds_are_finite_and_fewer_false_positives_need_a_higher_one(values, fpr, seed):
    scores = torch.tensor(values)
    threshold = threshold_at_fpr(scores, fpr)
    assert threshold.isfinite()
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(threshold_at_fpr(scores[order], fpr), threshold)
    if len(scores) * fpr >= 10:
        # a score of these: how many lie above it is known
        assert (scores >= threshold).sum() <= fpr * (len(scores) + 1)
    if len(scores) * fpr < 10 or len(scores) * fpr >= 20:
        assert threshold_at_fpr(scores, fpr / 2) >= threshold


@quick
@given(values=lists)
def test_bounded_scores_keep_their_order(values):
    scores = torch.tensor(values).sort().values
    seen = bounded(scores)
    assert ((seen >= 0) & (seen <= 1)).all()
    assert (seen.diff() >= 0).all()
    apart = (scores.diff() > 1e-2 * (1 + scores[1:].abs())) & (scores[1:].abs() < 1e3) & (scores[:-1].abs() < 1e3)
    assert (seen.diff()[apart] > 0).all(), "different scores stay different"


@quick
@given(normal=st.lists(floats(1e3), min_size=1, max_size=30), new=st.lists(floats(1e3), min_size=2, max_size=30))
def test_post_processor_keeps_the_order_and_puts_the_threshold_at_a_half(normal, new):
    processor = RankPreservingPostProcessor()
    normals = bounded(torch.tensor(normal))
    processor.calibrate([InferenceBatch(pred_score=normals, anomaly_map=normals[:, None, None, None])])
    scores = bounded(torch.tensor(new).sort().values)
    ends = processor.image_min, processor.image_max, processor._image_threshold
    seen = processor._normalize(scores, *ends)
    assert seen.isfinite().all()
    assert (seen.diff() >= 0).all()
    assert ((seen >= 0.5) == (scores >= processor._image_threshold)).all()


@quick
@given(count=st.integers(0, 400), share=st.floats(0, 0.9), seed=st.integers(0, 2**31))
def test_held_out_images_never_use_up_the_others(count, share, seed):
    indices = held_out_indices(count, share, seed)
    assert indices == sorted(set(indices))
    assert all(0 <= index < count for index in indices)
    assert not count or len(indices) < count
    assert indices == held_out_indices(count, share, seed)


@quick
@given(images=tensors((2, 3, 16, 16), 1.0), other=tensors((2, 3, 16, 16), 1.0))
def test_reconstruction_terms_are_finite_and_best_for_the_image_itself(images, other):
    images.requires_grad_()
    terms, same = reconstruction_terms(images, other), reconstruction_terms(images, images)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert images.grad.isfinite().all()
    assert terms["mse"] >= same["mse"] == 0
    assert terms["ssim"] <= same["ssim"] + 1e-4
    flipped = reconstruction_terms(images.flip(0), other.flip(0))
    torch.testing.assert_close(flipped, terms, rtol=1e-4, atol=1e-5)


@quick
@given(
    shape=array_shapes(min_dims=1, max_dims=1, max_side=12),
    values=st.data(),
    bound=st.sampled_from([0.0, 1e-6, 1.0, 1e3, 1e6]),
)
def test_maps_are_finite_however_the_normals_vary(shape, values, bound):
    """One normal image, constant normals, outliers: calibrated maps stay finite, and batches do not matter."""
    raw = RawMap(pixel_grid((32, 32)).pooled((4, 4)), (32, 32))
    normal = values.draw(tensors((*shape, 4, 4), bound))
    assert raw.calibrate(normal, (0.9, 0.995)).isfinite().all()
    new = values.draw(tensors((3, 4, 4), 1e6))
    for seen in (raw.anomaly_map, raw.image_score):
        maps = bounded(seen(new))
        assert maps.isfinite().all()
        torch.testing.assert_close(bounded(seen(new.flip(0))).flip(0), maps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_descriptors_of_any_precision_score_alike(dtype):
    torch.manual_seed(0)
    prototypes = fitted(torch.randn(100, 6))
    y = torch.randn(2, 6, 3, 3)
    expected = prototypes(y)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        seen = prototypes(y.to(dtype))
    torch.testing.assert_close(seen.float(), expected, rtol=0.05, atol=0.05)
