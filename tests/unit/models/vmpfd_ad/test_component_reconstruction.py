# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Reconstruction from principal components of whole images: what scikit-learn gives, and what it finds."""

import numpy as np
import pytest
import torch
from described import Described, seen
from sklearn.decomposition import TruncatedSVD
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomalib_vmpfd.models.vmpfd_ad import component_reconstruction
from anomalib_vmpfd.models.vmpfd_ad.component_reconstruction import ComponentReconstruction
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from kept_numbers import kept_numbers

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def descriptor() -> PatchDescriptor:
    return PatchDescriptor("pdn_small", (64, 64))


@pytest.fixture(scope="module")
def factors(descriptor) -> Tensor:
    """Twenty ways in which whole images vary, of falling size."""
    torch.manual_seed(0)
    return torch.randn(20, descriptor.channels, 8, 8) * torch.linspace(2, 0.2, 20)[:, None, None, None]


def normals(factors: Tensor, count: int) -> Tensor:
    noise = torch.randn(count, *factors.shape[1:])
    return torch.einsum("bk, kchw -> bchw", torch.randn(count, len(factors)), factors) + noise


def build(descriptor: PatchDescriptor, **arguments) -> ComponentReconstruction:
    return ComponentReconstruction((64, 64), descriptor, **({"smoothing": 0.0} | arguments))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_error_is_that_of_the_truncated_svd_of_scikit_learn(descriptor, factors, side):
    images, new = normals(factors, 30), normals(factors, 3)
    branch = build(descriptor, code=6, sides=[side])
    branch.fit(Described(images))
    rows, others = (F.avg_pool2d(each, side).flatten(1).double().numpy() for each in (images, new))
    oracle = TruncatedSVD(6, algorithm="arpack", random_state=0).fit(rows)
    residual = others - oracle.inverse_transform(oracle.transform(others))
    cells = 8 // side
    expected = np.sqrt(np.square(residual.reshape(3, -1, cells, cells)).mean(1))
    (errors,) = branch.score(seen(new))
    torch.testing.assert_close(errors, torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("images", "components"), [(1, 1), (2, 1), (7, 3), (30, 5)])
def test_few_images_get_half_as_many_components(descriptor, factors, images, components):
    branch = build(descriptor, code=5, sides=[2])
    branch.fit(Described(normals(factors, images)))
    assert (branch.components_0.abs().amax(1) > 0).sum() == components
    assert branch.components_0.isfinite().all()


def test_components_of_an_earlier_fit_are_gone(descriptor, factors):
    branch, again = build(descriptor, code=5), build(descriptor, code=5)
    few = Described(normals(factors, 4))
    branch.fit(Described(normals(factors, 30)))
    for each in (branch, again):
        each.fit(few)
    torch.testing.assert_close(branch.state_dict(), again.state_dict(), rtol=0, atol=0)


def test_each_side_has_a_map_of_its_own_that_lies_where_its_squares_lie(descriptor):
    branch = build(descriptor, sides=[2, 4])
    assert [each.locations.mean.shape for each in branch.maps] == [(4, 4), (2, 2)]
    errors = torch.zeros(1, 4, 4), torch.zeros(1, 2, 2)
    errors[0][0, 1, 2] = 1
    shown = branch.anomaly_map(errors)[0, 0]
    # the cells 2 and 3 by 4 and 5 lie at 16 + 4 i pixels
    assert divmod(shown.flatten().argmax().item(), 64) == (26, 34)
    assert shown[26, 34] == pytest.approx(0.5), "the mean of two maps"


@pytest.mark.parametrize("images", [12, 40])
def test_scores_left_out_are_those_of_new_images_where_own_ones_are_flattered(descriptor, factors, images):
    torch.manual_seed(1)
    branch, learnt = build(descriptor, sides=[1, 2]), normals(factors, images)
    branch.fit(Described(learnt))
    kinds = (
        branch.score_left_out(Described(learnt)),
        branch.score(seen(normals(factors, 60))),
        branch.score(seen(learnt)),
    )
    for left_out, new, own in zip(*kinds, strict=True):
        assert left_out.shape == own.shape
        # a tenth fewer images have learnt a tenth fewer components
        assert left_out.mean().item() == pytest.approx(new.mean().item(), rel=0.1)
        assert left_out.amax((1, 2)).mean().item() == pytest.approx(new.amax((1, 2)).mean().item(), rel=0.1)
        assert own.mean() < 0.85 * new.mean()


def test_each_image_is_left_out_once_in_order(descriptor, factors):
    """By components that scikit-learn takes from the other nine tenths, whichever these are."""
    torch.manual_seed(2)
    learnt = normals(factors, 10)
    branch = build(descriptor, code=3, sides=[1])
    branch.fit(Described(learnt))
    (left_out,) = branch.score_left_out(Described(learnt, batch=3))
    rows = learnt.flatten(1).double().numpy()
    for index in range(10):
        oracle = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(np.delete(rows, index, 0))
        residual = rows[index : index + 1] - oracle.inverse_transform(oracle.transform(rows[index : index + 1]))
        expected = np.sqrt(np.square(residual.reshape(-1, 8, 8)).mean(0))
        torch.testing.assert_close(left_out[index], torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)


def test_two_images_are_each_judged_by_the_other(descriptor):
    one = torch.randn(descriptor.channels, 8, 8)
    for other, usual in ((3 * one, True), (torch.randn_like(one), False)):
        branch, pair = build(descriptor, sides=[2]), torch.stack([one, other])
        branch.fit(Described(pair))
        (left_out,) = branch.score_left_out(Described(pair))
        assert (left_out < 1e-3).all() == usual


def test_a_displaced_part_is_found_though_every_cell_of_it_is_normal(descriptor):
    """A part lies at the left in half of the normals and at the right in the others, never in the middle."""
    torch.manual_seed(0)
    part = 3 * torch.randn(descriptor.channels)

    def images(columns: list[list[int]]) -> Tensor:
        made = 0.5 * torch.randn(len(columns), descriptor.channels, 8, 8)
        for image, starts in zip(made, columns, strict=True):
            for start in starts:
                image[:, 2:4, start : start + 2] += part[:, None, None]
        return made

    branch = build(descriptor, sides=[2], code=8)
    branch.fit(Described(images([[0], [6]] * 30)))
    (usual,) = branch.score(seen(images([[0], [6]] * 10)))
    (displaced,) = branch.score(seen(images([[2]])))
    assert displaced.max() > 2 * usual.max()
    assert divmod(displaced.flatten().argmax().item(), 4) == (1, 1)
    (mirrored,) = branch.score(seen(images([[6]]).flip(2)))
    assert divmod(mirrored.flatten().argmax().item(), 4) == (2, 3)


def test_more_images_than_the_components_are_taken_from_are_all_scored(descriptor, factors, monkeypatch):
    """Those that the components have not seen are new, and as many scores are left out as another branch gives."""
    torch.manual_seed(3)
    monkeypatch.setattr(component_reconstruction, "MAX_IMAGES", 12)
    images = normals(factors, 31)
    branch = build(descriptor, code=5, sides=[2])
    branch.fit(Described(images))
    kept = torch.linspace(0, 30, 12).long()
    alone = build(descriptor, code=5, sides=[2])
    alone.fit(Described(images[kept]))
    torch.testing.assert_close(branch.state_dict(), alone.state_dict(), rtol=0, atol=0)
    (left_out,), (own,) = branch.score_left_out(Described(images)), branch.score(seen(images))
    assert left_out.shape == (31, 4, 4)
    torch.testing.assert_close(left_out[kept], alone.score_left_out(Described(images[kept]))[0])
    others = torch.ones(31, dtype=torch.bool).index_fill(0, kept, value=False)
    torch.testing.assert_close(left_out[others], own[others])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(descriptor, factors, dtype):
    images = normals(factors, 12)
    branch = build(descriptor, code=5)
    branch.fit(Described(images))
    expected = branch.score(seen(images))
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(branch.score(seen(images)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("sides", [[], [0], [9], [2, 16]], ids=str)
def test_sides_that_do_not_fit_are_named(descriptor, sides):
    with pytest.raises(ValueError, match=r"sides=\(.*\) must be numbers of cells from 1 to the 8 of the grid"):
        build(descriptor, sides=sides)


def test_an_export_holds_the_components_once(descriptor, factors, tmp_path):
    """They are most of its numbers; a runtime that transposes a product keeps what it transposed."""

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = build(descriptor, code=6, sides=[1])
            self.branch.fit(Described(normals(factors, 30)))

        def forward(self, descriptors: Tensor) -> Tensor:
            return self.branch.score(seen(descriptors))[0]

    module = Scored()
    kept = kept_numbers(module, (normals(factors, 3),), tmp_path)
    assert max(kept.values()) < 1.2 * module.branch.components_0.nbytes, kept
