# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The decoder starts as principal component analysis, and learns what is not linear."""

import pytest
import torch
from sklearn.decomposition import TruncatedSVD

from anomalib_vmpfd.nn.descriptor_decoder import DescriptorDecoder
from kept_numbers import kept_numbers


def test_before_training_it_is_the_best_linear_code():
    torch.manual_seed(0)
    normals = torch.randn(30, 6, 2, 3) * torch.linspace(0.1, 3, 36).view(6, 2, 3)
    decoder = DescriptorDecoder(8, 6, (2, 3), code=5)
    decoder.fit_components(normals)
    oracle = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(normals.flatten(1).numpy())
    expected = oracle.inverse_transform(oracle.transform(normals.flatten(1).numpy()))
    seen = decoder(normals, torch.randn(30, 8, 2, 3)).flatten(1).detach()
    torch.testing.assert_close(seen, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("images", "components"), [(1, 1), (6, 3), (40, 5)])
def test_few_images_get_half_as_many_components(images, components):
    decoder = DescriptorDecoder(8, 6, (2, 3), code=5)
    decoder.fit_components(torch.randn(images, 6, 2, 3))
    assert (decoder.components.abs().amax(1) > 0).sum() == components
    assert decoder.components.isfinite().all()


def test_training_adds_what_the_linear_code_leaves():
    torch.manual_seed(0)
    decoder = DescriptorDecoder(8, 4, (2, 2), code=2)
    angle = torch.rand(64) * 6.28
    values = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (3 * angle).sin()], 1)
    targets = values[:, :, None, None].expand(-1, -1, 2, 2).contiguous()
    decoder.fit_components(targets)
    features = torch.zeros(64, 8, 2, 2)
    before = (decoder(targets, features) - targets).square().mean().item()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(300):
        loss = (decoder(targets, features) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * before


def test_an_export_holds_the_components_once(tmp_path):
    decoder = DescriptorDecoder(8, 6, (32, 32), code=16)
    decoder.fit_components(torch.randn(40, 6, 32, 32))
    inputs = (torch.randn(3, 6, 32, 32), torch.randn(3, 8, 32, 32))
    numbers = sum(each.nbytes for each in decoder.state_dict().values())
    kept = kept_numbers(decoder, inputs, tmp_path)
    assert max(kept.values()) < 1.2 * numbers, kept
