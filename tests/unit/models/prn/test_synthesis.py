# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Synthesised anomalies: on the part, as the mask says, the same again for a seed, and nothing else changed."""

import pytest
import torch
from PIL import Image

from anomalib_vmpfd.models.prn import synthesis as module
from anomalib_vmpfd.models.prn.synthesis import Synthesis, blended, extended, shuffled, simulated
from anomalib_vmpfd.models.prn.target_area import foreground, target_area

SIDE = 64


def disc(radius: float = 20.0) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (y - 30) ** 2 + (x - 34) ** 2 < radius**2


def part(seed: int = 0, radius: float = 20.0) -> torch.Tensor:
    """Picture of a bright disc with grain on a dark ground."""
    grain = 0.03 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (torch.where(disc(radius), 0.7, 0.1) + grain).clamp(0, 1)


def dim_part() -> torch.Tensor:
    """A disc hardly brighter than its ground, with a highlight that Otsu's threshold would take for the part."""
    grain = 0.005 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    picture = torch.where(disc(), 0.17, 0.1) + grain
    picture[:, 26:30, 26:36] = 0.9
    return picture


@pytest.fixture
def defect():
    """A magenta spot of 49 pixels on a grey picture."""
    image, mask = torch.full((3, SIDE, SIDE), 0.5), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[5:12, 8:15] = True
    image[:, mask] = torch.tensor([[1.0], [0.0], [1.0]])
    return image, mask


@pytest.mark.parametrize("known", [True, False])
def test_pixels_outside_of_the_mask_stay_and_those_inside_change(defect, known):
    images = torch.stack([part(seed) for seed in range(12)])
    made, masks = Synthesis()(images, [defect] if known else [], seed=0)
    assert masks.shape == (12, 1, SIDE, SIDE)
    assert masks.unique().tolist() == [0, 1]
    assert masks.flatten(1).any(1).all(), "every image has an anomaly"
    outside = (masks == 0).expand_as(images)
    torch.testing.assert_close(made[outside], images[outside], rtol=0, atol=0)
    changed = (made - images).abs().amax(1, keepdim=True)[masks > 0]
    assert (changed > 0.02).float().mean() > 0.8
    assert 0 <= made.min() <= made.max() <= 1


def test_anomalies_lie_on_the_part(defect):
    images = torch.stack([part(seed) for seed in range(12)])
    masks = Synthesis()(images, [defect], seed=1)[1][:, 0] > 0
    near = disc(23.0)  # the ground truth, and the width of its edge after a blur
    assert not (masks & ~near).any()
    anywhere = Synthesis(target_area="image")(images, [defect], seed=1)[1][:, 0] > 0
    assert (anywhere & ~near).any()


def test_an_image_gets_the_same_anomaly_in_any_batch_and_another_one_in_another_epoch(defect):
    images = torch.stack([part(seed) for seed in range(4)])
    torch.manual_seed(7)
    together = Synthesis()(images, [defect], seed=3)
    drawn = torch.rand(1)
    backwards = [each.flip(0) for each in Synthesis()(images.flip(0), [defect], seed=3)]
    for one, other in zip(together, backwards, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(Synthesis()(images, [defect], seed=4)[1], together[1])
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn), "the draws of others are left alone"


def test_a_known_defect_keeps_its_shape_but_for_geometry_and_lies_in_the_target_area(defect, monkeypatch):
    monkeypatch.setattr(module, "appearance", lambda image: image)
    area = disc()
    found = 0
    for seed in range(20):
        torch.manual_seed(seed)
        looks, mask = extended(defect, area)
        assert not (mask & ~area).any()
        inside = mask & ~_edge(mask)
        # what the mask marks is the spot itself, not the picture around it
        assert (looks[1][inside] < 0.05).float().mean() > 0.95 if inside.any() else True
        found += mask.sum() > 10
    assert found >= 15


def test_known_defects_keep_their_look_where_they_are_asked_to(defect):
    images = torch.stack([part(seed) for seed in range(40)])
    made, masks = Synthesis(unchanged=1.0)(images, [defect], seed=0)
    whole = [
        torch.equal(each, defect[0]) and torch.equal(mask[0] > 0, defect[1])
        for each, mask in zip(made, masks, strict=True)
    ]
    magenta = ((made[:, 0] > 0.95) & (made[:, 1] < 0.05) & (made[:, 2] > 0.95)).flatten(1).any(1)
    moved = [bool(spot) and not same for spot, same in zip(magenta, whole, strict=True)]
    assert 5 <= sum(whole) <= 15, "a quarter: one half of the half from known defects"
    assert 5 <= sum(moved) <= 20
    for index, each in enumerate(moved):
        if each:
            outside = (masks[index] == 0).expand_as(images[index])
            torch.testing.assert_close(made[index][outside], images[index][outside], rtol=0, atol=0)


def _edge(mask: torch.Tensor) -> torch.Tensor:
    worn = torch.nn.functional.max_pool2d((~mask).float()[None, None], 5, 1, 2)[0, 0] > 0
    return mask & worn


def test_simulated_anomalies_are_foreign_textures_and_the_image_shuffled(tmp_path, monkeypatch):
    """Both kinds come; a folder of textures is where the foreign ones are from."""
    monkeypatch.setattr(module, "appearance", lambda image: image)
    Image.new("RGB", (40, 30), (0, 0, 255)).save(tmp_path / "blue.png")
    files = Synthesis(textures=str(tmp_path)).textures
    kinds = set()
    for seed in range(16):
        torch.manual_seed(seed)
        source, mask = simulated(part(), torch.ones(SIDE, SIDE, dtype=torch.bool), files)
        assert mask.any()
        foreign = torch.equal(source, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, SIDE, SIDE))
        if not foreign:
            assert torch.equal(source.flatten(1).sort().values, part().flatten(1).sort().values), "the same pixels"
        kinds.add(foreign)
    assert kinds == {True, False}


def test_a_folder_without_textures_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no picture in textures=.*leave it out"):
        Synthesis(textures=str(tmp_path))


def test_the_blend_is_equations_4_and_6():
    torch.manual_seed(0)
    n, a, m, beta = torch.rand(3, 5, 5), torch.rand(3, 5, 5), torch.rand(5, 5) > 0.5, 0.3
    masked = m.float()
    expected = (1 - masked) * n + (1 - beta) * (masked * a) + beta * (masked * n)
    torch.testing.assert_close(blended(n, a, m, beta), expected)


def test_shuffled_moves_whole_cells():
    image = torch.arange(64.0).view(1, 8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.manual_seed(0)
    cells = shuffled(image)[0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    assert (cells == cells[..., :1]).all()
    assert sorted(cells[..., 0].flatten().tolist()) == list(range(64))
    assert not torch.equal(shuffled(image), image)


def test_the_part_is_told_from_a_plain_ground_and_a_texture_is_all_part():
    for picture in (part(), dim_part()):
        seen = foreground(picture)
        assert (seen & disc()).sum() > 0.97 * disc().sum()
        assert not (seen & ~disc(23.0)).any()
    torch.manual_seed(0)
    assert foreground(torch.rand(3, SIDE, SIDE)).all()
    assert foreground(torch.full((3, SIDE, SIDE), 0.4)).all()
    assert foreground(part(radius=60.0)).all(), "a part that fills the picture"


def test_target_areas_are_of_every_size_and_never_leave_the_part():
    sizes = []
    for seed in range(30):
        torch.manual_seed(seed)
        area = target_area(disc())
        assert area.any()
        assert not (area & ~disc()).any()
        sizes.append(int(area.sum()))
    assert max(sizes) > 4 * min(sizes)
    lonely = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    lonely[3, 60] = True
    assert torch.equal(target_area(lonely), lonely)
