# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Trainings on one to three normals: most new normals score below the threshold, defects do not."""

import pytest
import torch

import tiny
from anomalib_vmpfd import VmpfdAd

ARGUMENTS = {"image_size": (tiny.SIDE, tiny.SIDE), "density_args": {"num_components": 256}, "visualizer": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tiny.with_defects(tmp_path_factory.mktemp("few"))
    for count in (1, 2, 3):
        for index in range(count):
            tiny.save(root / f"good_{count}" / f"{index}.png", tiny.texture(index))
    return root


def fitted(folder, root, count, **arguments):
    model, data = VmpfdAd(**(ARGUMENTS | arguments)), tiny.data(root, normal_dir=f"good_{count}")
    tiny.engine(folder).fit(model, datamodule=data)
    return model, data


@pytest.mark.parametrize("count", [1, 2, 3])
def test_most_new_normals_are_judged_normal_and_all_defects_anomalous(images, tmp_path, caplog, count):
    """With scales that are those of rounding, as an image judged by itself has, every new normal is a defect."""
    model, data = fitted(tmp_path, images, count)
    predictions = tiny.engine(tmp_path).predict(model, dataloaders=data.test_dataloader())
    labels = torch.cat([batch.gt_label for batch in predictions]).bool()
    judged = torch.cat([batch.pred_label for batch in predictions]).bool()
    assert judged[labels].all()
    assert judged[~labels].float().mean() <= 0.25, "of so few normals no threshold is firm"
    assert any("mirror images" in text for text in caplog.messages) == (count == 1)


def test_every_scale_of_one_normal_is_one_of_scores(images, tmp_path):
    """No branch outweighs the others, and no scale is that of rounding."""
    model, _ = fitted(tmp_path, images, 1)
    for branch in model.model.branches.values():
        for each in branch.maps:
            assert 0.01 < float(each.quantiles[1] - each.quantiles[0]) < 10
            assert float(each.locations.std.min()) > 1e-3
            assert 0.3 < float(each.maximum[1]) < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"contamination": 0.1}, "give 0, or more images"), ({"roi": "roi.png"}, "at least two normal")],
)
def test_what_one_normal_does_not_allow_is_refused_with_the_cure(images, tmp_path, arguments, message):
    if "roi" in arguments:
        inside = torch.full((tiny.SIDE, tiny.SIDE), 255, dtype=torch.uint8)
        inside[:, :20] = 0
        arguments = {"roi": str(tiny.save(tmp_path / arguments["roi"], inside.numpy()))}
    with pytest.raises(ValueError, match=message):
        fitted(tmp_path, images, 1, **arguments)
