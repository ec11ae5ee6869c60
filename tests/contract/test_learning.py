# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every model learns from normals alone, finds planted defects, and comes to the same result again."""

import shutil

import pytest
import torch
from entries import ENTRIES
from lightning.pytorch import Callback
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812
from trainings import StopAfter, assert_same_state, scores

import tiny
from anomalib_vmpfd import MODELS


def test_every_model_is_under_contract():
    assert {entry.model for entry in ENTRIES.values()} >= set(MODELS)


def test_it_finds_the_planted_defects(entry, trained):
    seen, labels = scores(trained.model, trained.data)
    assert trained.metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, seen), abs=1e-6)
    assert trained.metrics["image_AUROC"] >= entry.image_auroc
    assert trained.metrics["pixel_AUROC"] >= entry.pixel_auroc
    assert ((seen > 0) & (seen < 1)).all()


def test_heatmaps_point_at_the_defects(entry, trained):
    """The brightest pixel of a defective part lies within a twentieth of the image's side of the planted defect."""
    hits = []
    with torch.inference_mode():
        for batch in trained.data.test_dataloader():
            maps = trained.model.eval()(batch.image).anomaly_map[:, 0]
            near = F.adaptive_max_pool2d(F.max_pool2d(batch.gt_mask.float()[:, None], 25, 1, 12), maps.shape[-2:])
            peaks = maps.flatten(1).argmax(1)
            hits += [bool(near[i].flatten()[p]) for i, p in enumerate(peaks) if batch.gt_label[i]]
    assert sum(hits) >= entry.peaks * len(hits)


def test_thresholds_come_from_normals_and_let_most_normals_pass(trained):
    seen, labels = scores(trained.model, trained.data)
    assert trained.model.post_processor.image_threshold.isfinite()
    assert (seen[labels == 0] < 0.5).float().mean() >= 0.5


def test_images_in_another_light_than_in_training_have_drifted(trained):
    batches = list(trained.data.test_dataloader())
    same, darker = (
        torch.cat([trained.model.drift(factor * batch.image[batch.gt_label == 0]) for batch in batches])
        for factor in (1, 0.6)
    )
    assert (same <= 1).float().mean() >= 0.9
    assert (darker > 1).all()


def test_scores_depend_neither_on_batch_size_nor_on_order(trained):
    batch = next(iter(trained.data.test_dataloader())).image
    trained.model.eval()
    with torch.inference_mode():
        together, backwards = trained.model(batch), trained.model(batch.flip(0)).pred_score.flip(0)
        alone = [trained.model(image[None]) for image in batch]
    # float32 products of other sizes add up in another order
    maps, seen = (torch.cat([getattr(each, name) for each in alone]) for name in ("anomaly_map", "pred_score"))
    torch.testing.assert_close(maps, together.anomaly_map, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen, together.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backwards, together.pred_score, rtol=1e-4, atol=1e-5)


def test_same_seed_same_model_other_seed_other_model(entry, few, tmp_path):
    states = []
    for run, seed in enumerate((1, 1, 2)):
        model = entry.build(seed=seed)
        torch.rand(run + 1)  # what happened before must not matter
        tiny.engine(tmp_path / str(run), max_epochs=1).fit(model, datamodule=few())
        states.append(torch.cat([value.flatten().float() for value in model.state_dict().values()]).nan_to_num())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert not torch.equal(states[0], states[2])


def test_a_resumed_training_ends_like_an_uninterrupted_one(entry, few, tmp_path):
    whole = entry.build()
    tiny.engine(tmp_path / "whole", max_epochs=3).fit(whole, datamodule=few())
    first = tiny.engine(tmp_path / "part", max_epochs=3, callbacks=[StopAfter(0)])
    first.fit(entry.build(), datamodule=few())
    resumed = entry.build()
    checkpoint = first.trainer.checkpoint_callback.best_model_path
    tiny.engine(tmp_path / "resumed", max_epochs=3).fit(resumed, datamodule=few(), ckpt_path=checkpoint)
    assert_same_state(resumed, whole)


def test_the_recipe_ends_a_bare_training(trained):
    assert trained.engine.trainer.max_epochs == trained.engine.trainer.current_epoch == trained.model.epochs


@pytest.mark.parametrize("given", [5, 1000], ids=["longer", "lightnings-default"])
def test_a_users_length_wins(entry, few, tmp_path, given):
    runner = tiny.engine(tmp_path, max_epochs=given, callbacks=[StopAfter(0)])
    runner.fit(entry.build(), datamodule=few())
    assert runner.trainer.max_epochs == given


def test_training_never_reads_a_test_image(entry, few, tmp_path):
    root = shutil.copytree(few().root, tmp_path / "data")
    for folder in ("bad", "good_test", "mask"):
        for image in (root / folder).iterdir():
            image.write_bytes(b"")
    model = entry.build()
    tiny.engine(tmp_path, max_epochs=1).fit(model, datamodule=few(root=root))
    assert model.post_processor.image_threshold.isfinite()


def test_held_out_images_never_reach_a_step(entry, few, tmp_path):
    seen: set[str] = set()

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            del trainer, pl_module, batch_idx
            seen.update(batch.image_path)

    model = entry.build()
    model.held_out = 0.25
    runner = tiny.engine(tmp_path, max_epochs=1, callbacks=[Watch()])
    runner.fit(model, datamodule=few())
    files = {str(path) for path in runner.trainer.datamodule.train_data.samples["image_path"]}
    assert len(seen) == len(files) - 3 == 9
    assert seen < files
