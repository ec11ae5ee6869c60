# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Memory modules against a transcription of equations 1 to 3 and 5 in NumPy."""

import numpy as np
import pytest
import torch

from anomalib_vmpfd.models.mmaerec.memory import MemoryModule, entropy


def transcribed(z: np.ndarray, memory: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Equations 1 to 3 of one query: the approximation ``z_hat`` and the weights ``w_hat``."""
    cosines = np.array([z @ m / (np.linalg.norm(z) * np.linalg.norm(m)) for m in memory])
    w = np.exp(cosines) / np.exp(cosines).sum()
    shrunk = np.maximum(w - threshold, 0) * w / (np.abs(w - threshold) + 1e-12)
    total = np.abs(shrunk).sum()
    w_hat = shrunk / total if total > 0 else shrunk
    return w_hat @ memory, w_hat


@pytest.mark.parametrize("shrinkage", [0.0, 1.0, 1.3])
def test_a_memory_recalls_what_equations_1_to_3_say(shrinkage):
    torch.manual_seed(0)
    memory = MemoryModule(10, 6, shrinkage).double()
    queries = torch.randn(2, 6, 3, 5, dtype=torch.double)
    recalled = memory(queries)
    items = memory.items.detach().numpy()
    for b, i, j in np.ndindex(2, 3, 5):
        z_hat, w_hat = transcribed(queries[b, :, i, j].numpy(), items, shrinkage / 10)
        np.testing.assert_allclose(recalled.features[b, :, i, j].detach(), z_hat, atol=1e-9)
        np.testing.assert_allclose(recalled.weights[b, :, i, j].detach(), w_hat, atol=1e-9)


def test_weights_are_sparse_and_sum_to_one_or_nothing():
    torch.manual_seed(0)
    queries = torch.randn(1, 6, 8, 8)
    weights = MemoryModule(10, 6)(queries).weights
    assert 0.2 < (weights == 0).float().mean() < 0.8
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 8, 8))
    # beyond the largest weight that a cosine can give, no item is kept
    nothing = MemoryModule(10, 6, 9.0)(queries)
    assert not nothing.weights.any()
    assert not nothing.features.any()


def test_a_query_far_from_the_items_comes_back_as_their_mixture():
    """What makes a memory a memory: its answer does not depend on the length of the query."""
    memory = MemoryModule(5, 4)
    query = torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(memory(100 * query).features, memory(query).features)


def test_gradients_pass_through_addressing_and_shrinkage():
    torch.manual_seed(0)
    memory = MemoryModule(4, 3, 0.9).double()
    queries = torch.randn(1, 3, 2, 2, dtype=torch.double)

    def recall(items: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        recalled = torch.func.functional_call(memory, {"items": items}, z)
        return recalled.features, entropy(recalled.weights)

    assert 0 < (memory(queries).weights == 0).sum() < 16, "some weights are shrunk and some are not"
    items = memory.items.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(recall, (items, queries.requires_grad_()))


def test_entropy_is_that_of_equation_5_and_stays_finite_with_its_gradient():
    weights = torch.tensor([[0.5, 1.0], [0.5, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    value = entropy(weights)
    assert value.item() == pytest.approx(np.log(2) / 2)
    value.backward()
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize(("items", "shrinkage"), [(0, 0.0), (5, -1.0), (5, 5.0)])
def test_a_memory_of_nothing_is_refused(items, shrinkage):
    with pytest.raises(ValueError, match=r"num_items|shrinkage"):
        MemoryModule(items, 4, shrinkage)


def test_items_start_at_cells_of_normal_images():
    torch.manual_seed(0)
    queries = torch.randn(2, 3, 4, 4)
    cells = queries.movedim(1, -1).reshape(-1, 3)
    memory = MemoryModule(8, 3)
    memory.start_from(queries)
    distances = torch.cdist(memory.items.detach(), cells).amin(1)
    torch.testing.assert_close(distances, torch.zeros(8))
    assert len(memory.items.unique(dim=0)) == 8, "no cell twice"
    before = memory.items.clone()
    memory.start_from(queries[:1, :, :2, :3])
    assert torch.equal(memory.items, before), "six cells are too few"
