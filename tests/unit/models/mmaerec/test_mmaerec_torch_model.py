# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The whole of figure 1: which parts the ablations leave out, what the loss and the maps are made of."""

import pytest
import torch

from anomalib_vmpfd.models.mmaerec import MmaerecModel
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

SIZE = (64, 96)
LAYERS = [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.4"]]


@pytest.fixture(scope="module")
def extractor() -> PatchDescriptor:
    """Frozen features at strides 2 to 16, of random weights."""
    torch.manual_seed(0)
    return PatchDescriptor("timm/tf_efficientnet_lite2", SIZE, LAYERS)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def model(extractor: PatchDescriptor | None, **arguments) -> MmaerecModel:
    torch.manual_seed(0)
    return MmaerecModel(SIZE, extractor, base_width=4, **arguments)


def test_memories_of_four_scales_and_edges_give_an_image(extractor, images):
    reconstructions, weights = model(extractor).eval().reconstruct(images)
    assert reconstructions.shape == images.shape
    assert [tuple(each.shape) for each in weights] == [(2, 30, 64 >> i, 96 >> i) for i in range(1, 5)]


def test_the_image_reaches_the_decoder_through_memories_and_edges_alone(extractor, images):
    """Images with the same edges and features of the same direction are one to it: nothing is copied past them."""
    network = model(extractor).eval()
    features = extractor.describe(images)
    with torch.no_grad():
        one, _ = network.reconstruct(images, features)
        longer, _ = network.reconstruct(images, tuple(3 * each for each in features))
        flatter, _ = network.reconstruct(0.9 * images, features)
    torch.testing.assert_close(one, longer)  # a cosine knows no length; the statistics are 0 and 1 here
    assert not torch.allclose(one, flatter), "the edges differ"


@pytest.mark.parametrize(
    ("memory", "edges", "levels"),
    [(True, False, 4), (False, True, 4), (True, True, 4)],
    ids=["memory", "edges", "both"],
)
def test_table_5_leaves_one_out(extractor, images, memory, edges, levels):
    network = model(extractor if memory else None, edges=edges)
    terms = network.train()(images)
    assert set(terms) == {"l2", "dssim", *(["entropy"] if memory else [])}
    sum(terms.values()).backward()
    without = [name for name, each in network.named_parameters() if each.requires_grad and each.grad is None]
    assert not without, "every trained parameter takes part, which data-parallel trainings ask for"
    assert len(network.attentions) == levels


def test_nothing_at_all_is_refused():
    with pytest.raises(ValueError, match="Neither memories nor edges take part"):
        model(None, edges=False)


@pytest.mark.parametrize("count", [1, 3])
def test_table_7_has_memories_of_the_finest_levels_and_edges_of_all(images, count):
    network = model(PatchDescriptor("timm/tf_efficientnet_lite2", SIZE, LAYERS[:count]))
    assert (len(network.memories), len(network.edge_encoder.levels)) == (count, 4)
    assert network.eval()(images).anomaly_map.shape == (2, 1, *SIZE)


def test_table_8_weighs_the_terms(extractor, images):
    torch.manual_seed(1)
    whole = model(extractor).train()(images)
    weighed = model(extractor, l2=2.0, theta=0.0, alpha=4e-4).train()(images)
    assert weighed["l2"].item() == pytest.approx(2 * whole["l2"].item(), rel=1e-5)
    assert weighed["dssim"].item() == 0
    assert weighed["entropy"].item() == pytest.approx(2 * whole["entropy"].item(), rel=1e-5)


def test_stages_of_other_strides_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"Level 1 .* 16x24 cells.*32x48 of stride 2.*extractor_args.layers"):
        model(PatchDescriptor("timm/tf_efficientnet_lite2", SIZE, [["blocks.1"], ["blocks.2"]]))


def test_an_unknown_attention_is_refused_by_name(extractor):
    with pytest.raises(ValueError, match=r"attention='spatial'.*'coordinate'"):
        model(extractor, attention="spatial")


def test_structure_and_colour_add_up_to_the_map(extractor, images):
    network = model(extractor).eval()
    list(network.calibrate(network.score(images).detach(), (0.5, 0.95)))
    seen = network.explain(images)
    start, end = network.total.quantiles
    sum_from_start = seen["structure"] + seen["colour"] - start / (end - start)
    torch.testing.assert_close(sum_from_start, seen["total"], rtol=1e-4, atol=1e-4)
    # from zero, so that the share of each can be seen
    assert seen["structure"].min() >= -1e-4
    assert seen["colour"].min() >= -1e-4
    assert seen["edges"].shape == seen["reconstruction"].shape == images.shape


def test_a_calibrated_map_has_0_and_1_at_the_quantiles_of_normals(extractor, images):
    network = model(extractor).eval()
    scores = network.score(images).detach()
    list(network.calibrate(scores, (0.5, 0.95)))
    quantiles = network.total.anomaly_map(scores).flatten().quantile(torch.tensor([0.5, 0.95]))
    torch.testing.assert_close(quantiles, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


def test_a_changed_spot_is_the_brightest_of_the_map(extractor, images):
    """Scores are differences of image and reconstruction: what is not given back stands out where it is."""
    network = model(extractor).eval()
    other = images.clone()
    other[:, :, 24:40, 40:56] = 1 - other[:, :, 24:40, 40:56]
    structure, colour = network.differences(other, images)
    for difference in (structure, colour):
        peaks = difference.flatten(1).argmax(1)
        assert ((peaks // 96 - 32).abs() <= 16).all()
        assert ((peaks % 96 - 48).abs() <= 16).all()
