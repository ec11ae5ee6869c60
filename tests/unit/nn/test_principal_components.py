# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, TruncatedSVD

from anomalib_vmpfd.nn.principal_components import principal_components

pytestmark = pytest.mark.numeric


def signed(components: np.ndarray) -> np.ndarray:
    """With the largest entry by magnitude positive."""
    return components * np.sign(components[range(len(components)), np.abs(components).argmax(1)])[:, None]


@pytest.mark.parametrize("shape", [(12, 200), (200, 12)], ids=["few-long-rows", "many-short-rows"])
def test_they_are_those_of_scikit_learn_without_centring(shape):
    torch.manual_seed(0)
    rows = torch.randn(shape) * torch.linspace(0.2, 3, shape[1]) + 1.0
    oracle = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(rows.double().numpy())
    np.testing.assert_allclose(principal_components(rows, 5).numpy(), signed(oracle.components_), rtol=0, atol=1e-5)


def test_of_centred_rows_they_are_those_of_pca():
    torch.manual_seed(0)
    rows = torch.randn(30, 50) * torch.linspace(0.2, 3, 50)
    rows -= rows.mean(0)
    oracle = PCA(4, svd_solver="full").fit(rows.double().numpy())
    np.testing.assert_allclose(principal_components(rows, 4).numpy(), signed(oracle.components_), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_they_are_orthonormal_and_their_signs_do_not_depend_on_the_decomposition(shape, monkeypatch):
    torch.manual_seed(0)
    rows = torch.randn(shape, dtype=torch.float64)
    seen = principal_components(rows, 6)
    torch.testing.assert_close(seen @ seen.T, torch.eye(6, dtype=torch.float64))
    eigh = torch.linalg.eigh

    def other_signs(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = eigh(matrix)
        return values, vectors * torch.tensor([1.0, -1.0]).repeat(6)

    monkeypatch.setattr(torch.linalg, "eigh", other_signs)
    torch.testing.assert_close(principal_components(rows, 6), seen, rtol=0, atol=1e-12)
    torch.testing.assert_close(principal_components(-rows, 6), seen, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e6])
def test_beyond_the_rank_of_the_rows_they_are_zero(rank, scale):
    generator = torch.Generator().manual_seed(0)
    factors = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((8, rank), (rank, 20)))
    rows = scale * torch.linalg.multi_dot([*factors])
    seen = principal_components(rows, 12)
    assert seen.shape == (12, 20)
    assert (seen[rank:] == 0).all()
    torch.testing.assert_close(seen[:rank] @ seen[:rank].T, torch.eye(rank, dtype=torch.float64))
    torch.testing.assert_close(rows @ seen.T @ seen, rows)


def test_they_keep_the_type_of_the_rows_and_are_found_in_float64():
    torch.manual_seed(0)
    rows = 1e3 + torch.randn(10, 64)
    with torch.autocast("cpu", torch.bfloat16):
        seen = principal_components(rows, 4)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double(), principal_components(rows.double(), 4), rtol=0, atol=1e-6)
