# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Prototypes of feature maps are the centres of k-means, and residuals are those of equation 1."""

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from anomalib_vmpfd.models.prn.prototypes import MapPrototypes
from kept_numbers import kept_numbers

pytestmark = pytest.mark.numeric
SHAPE = (3, 4, 5)


def clusters(each: int = 20, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """Feature maps around three centres, and the centres."""
    torch.manual_seed(0)
    centres = 3 * torch.randn(3, *SHAPE)
    return centres.repeat(each, 1, 1, 1) + spread * torch.randn(3 * each, *SHAPE), centres


def fitted(count: int = 3, seed: int = 0) -> MapPrototypes:
    prototypes = MapPrototypes(SHAPE)
    prototypes.fit(clusters()[0], count, seed)
    return prototypes


def test_they_are_the_best_that_scikit_learn_finds_in_many_tries():
    maps, centres = clusters()
    best = KMeans(3, n_init=20, random_state=1).fit(maps.flatten(1).numpy())
    # one random start need not find them, so some seed has to
    found = min((fitted(seed=seed) for seed in range(5)), key=lambda each: each(maps).square().sum().item())
    assert found(maps).square().sum().item() == pytest.approx(best.inertia_, rel=1e-4)
    distances = torch.cdist(found.prototypes.flatten(1), centres.flatten(1))
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]
    assert distances.amin(1).max() < 0.2


def test_a_seed_gives_the_same_prototypes_again():
    torch.testing.assert_close(fitted(2).prototypes, fitted(2).prototypes, rtol=0, atol=0)


def test_residuals_are_those_of_a_slow_transcription():
    prototypes = fitted()
    maps = clusters()[0][:7] + 0.5 * torch.randn(7, *SHAPE)
    expected = torch.zeros_like(maps)
    for i, each in enumerate(maps):
        nearest = min(prototypes.prototypes, key=lambda p, each=each: float((each - p).pow(2).sum().sqrt()))
        for index in torch.cartesian_prod(*map(torch.arange, SHAPE)):
            place = tuple(index.tolist())
            expected[i][place] = ((each[place] - nearest[place]) ** 2) ** 0.5
    torch.testing.assert_close(prototypes(maps), expected)


def test_the_nearest_is_told_where_large_numbers_differ_little():
    prototypes = MapPrototypes(SHAPE)
    prototypes.prototypes = 100 + torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, 0.1)])
    maps = prototypes.prototypes + 0.02
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prototypes(maps), torch.full_like(maps, 0.02), rtol=1e-3, atol=1e-4)


def test_gradients():
    prototypes = fitted().double()
    assert torch.autograd.gradcheck(prototypes, clusters()[0][:4].double().requires_grad_())


def test_a_checkpoint_brings_its_own_number_of_prototypes():
    other = MapPrototypes(SHAPE)
    other.load_state_dict(fitted(5).state_dict())
    torch.testing.assert_close(other.prototypes, fitted(5).prototypes, rtol=0, atol=0)


def test_an_export_holds_the_prototypes_once(tmp_path):
    prototypes = MapPrototypes((8, 32, 32))
    torch.manual_seed(0)
    prototypes.fit(torch.randn(20, 8, 32, 32), 6, seed=0)
    kept = kept_numbers(prototypes, (torch.randn(3, 8, 32, 32),), tmp_path)
    assert max(kept.values()) < 1.2 * prototypes.prototypes.nbytes, kept
