# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The model from plain data: which parts there are, and arguments that nothing would read are refused."""

import pytest
import yaml

from anomalib_vmpfd import VmpfdAd
from anomalib_vmpfd.models.vmpfd_ad.component_reconstruction import ComponentReconstruction
from anomalib_vmpfd.models.vmpfd_ad.encoder import CnnTokenEncoder, VimTokenEncoder
from anomalib_vmpfd.models.vmpfd_ad.predicted_mixture import PredictedMixture
from anomalib_vmpfd.models.vmpfd_ad.prototype_density import PrototypeDensity
from anomalib_vmpfd.models.vmpfd_ad.reconstruction import DescriptorReconstruction, PixelReconstruction
from anomalib_vmpfd.models.vmpfd_ad.torch_model import VmpfdAdModel

SMALL = {"image_size": (64, 64), "density_args": {"num_components": 8}}
ENCODED = {"reconstruction": "descriptors"}
ALONE = {**SMALL, "reconstruction": None}


def build(**arguments) -> VmpfdAdModel:
    return VmpfdAd(**{**SMALL, **arguments}, visualizer=False).model


@pytest.mark.parametrize(
    ("arguments", "encoder", "density", "reconstruction"),
    [
        ({}, None, PrototypeDensity, ComponentReconstruction),
        ({"reconstruction": "descriptors"}, VimTokenEncoder, PrototypeDensity, DescriptorReconstruction),
        ({"reconstruction": "pixels"}, VimTokenEncoder, PrototypeDensity, PixelReconstruction),
        ({"encoder": "cnn", "reconstruction": "pixels"}, CnnTokenEncoder, PrototypeDensity, PixelReconstruction),
        ({"reconstruction": None}, None, PrototypeDensity, None),
        ({"density": None, "density_args": None}, None, None, ComponentReconstruction),
        ({"density": "predicted", "reconstruction": None}, VimTokenEncoder, PredictedMixture, None),
        (
            {"density": "predicted", "density_args": {"features": "descriptor"}, "reconstruction": None},
            None,
            PredictedMixture,
            None,
        ),
    ],
    ids=str,
)
def test_the_parts_are_those_that_were_named(arguments, encoder, density, reconstruction):
    model = build(**arguments)
    for part, kind in ((model.encoder, encoder), (model.density, density), (model.reconstruction, reconstruction)):
        assert type(part) is (kind or type(None))
    assert len(model.branches) == 2 - [density, reconstruction].count(None)


def test_the_encoder_reads_what_is_reconstructed_and_the_pixels_of_the_paper_where_nothing_is():
    assert build(reconstruction="descriptors").encoder.reads == "descriptors"
    assert build(reconstruction="pixels").encoder.reads == "pixels"
    assert build(density="predicted", reconstruction=None).encoder.reads == "pixels"
    reads = {"reads": "descriptors"}
    assert build(density="predicted", reconstruction=None, encoder_args=reads).encoder.reads == "descriptors"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({**ENCODED, "encoder": "vit"}, "Unknown encoder='vit'; choose one of 'vim', 'cnn'"),
        ({"density": "histogram"}, "Unknown density='histogram'; choose one of 'prototypes', 'predicted'"),
        ({"reconstruction": "edges"}, "Unknown reconstruction='edges'; choose one of 'components', 'descriptors'"),
        (
            {**ENCODED, "encoder_args": {"width": 3}},
            "encoder_args has no 'width' where encoder='vim'; it takes reads, patch_size, dim",
        ),
        (
            {**ENCODED, "encoder": "cnn", "encoder_args": {"depth": 3}},
            "encoder_args has no 'depth' where encoder='cnn'",
        ),
        ({"density_args": {"beta": 1.0}}, "density_args has no 'beta' where density='prototypes'"),
        (
            {"descriptor_args": {"cells": 8}},
            "descriptor_args has no 'cells' where descriptor='timm/tf_efficientnet_lite2'",
        ),
        (
            {"reconstruction": "pixels", "reconstruction_args": {"code": 8}},
            "reconstruction_args has no 'code' where reconstruction='pixels'",
        ),
        ({"density": None, "density_args": None, "reconstruction": None}, "Both density and reconstruction are None"),
        ({"density": None}, "density_args has no effect where density is None"),
        (
            {**ALONE, "reconstruction_args": {"code": 8}},
            "reconstruction_args has no effect where reconstruction is None",
        ),
        ({**ALONE, "map_weights": (0.6, 0.4)}, r"map_weights=\(0.6, 0.4\) has no effect on a single branch"),
        ({**ALONE, "encoder_args": {"dim": 32}}, "Nothing reads the encoder where density='prototypes'"),
        ({**ALONE, "encoder": "cnn"}, "Nothing reads the encoder"),
        ({**ENCODED, "encoder_args": {"reads": "pixels"}}, "reads='pixels' contradicts reconstruction='descriptors'"),
        ({"density_args": {"scales": [{"level": 0, "side": 40}]}}, "side=40.* does not fit a grid"),
        (
            {"density": "predicted", "density_args": {"target": "self", "bottleneck": 4}},
            "bottleneck in density_args belongs to target='descriptor'",
        ),
    ],
)
def test_what_nothing_would_read_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_arguments_are_plain_data():
    arguments = {**SMALL, **ENCODED, "encoder_args": {"dim": 16}, "density_args": {"scales": [{"level": 0, "side": 2}]}}
    hparams = dict(VmpfdAd(**arguments).hparams)
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in hparams.items()}
    assert yaml.safe_load(yaml.safe_dump(listed)) == listed
