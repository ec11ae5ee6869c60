# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every model learns from normals alone, finds planted defects, and comes to the same result again."""

import shutil

import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from entries import ENTRIES
from lightning.pytorch import Callback
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader, Dataset

from anomalib_vmpfd import MODELS
from conftest import engine, scores


def test_every_model_is_under_contract():
    assert {entry.model for entry in ENTRIES.values()} >= set(MODELS)


def test_it_finds_the_planted_defects(trained):
    seen, labels = scores(trained.model, trained.data)
    assert trained.metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, seen), abs=1e-6)
    assert trained.metrics["image_AUROC"] >= trained.entry.image_auroc
    assert ((seen > 0) & (seen < 1)).all()


def test_thresholds_come_from_normals_and_let_most_normals_pass(trained):
    seen, labels = scores(trained.model, trained.data)
    assert trained.model.post_processor.image_threshold.isfinite()
    assert (seen[labels == 0] < 0.5).float().mean() >= 0.5


def test_scores_depend_neither_on_batch_size_nor_on_order(trained):
    batch = next(iter(trained.data.test_dataloader())).image
    trained.model.eval()
    with torch.inference_mode():
        together = trained.model(batch)
        alone = torch.stack([trained.model(image[None]).anomaly_map[0] for image in batch])
        backwards = trained.model(batch.flip(0)).pred_score.flip(0)
    # float32 products of other sizes add up in another order
    torch.testing.assert_close(together.anomaly_map, alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together.pred_score, backwards, rtol=1e-3, atol=1e-4)


def test_same_seed_same_model_other_seed_other_model(entry, few, tmp_path):
    weights = []
    for run, seed in enumerate((1, 1, 2)):
        model = entry.build(seed=seed)
        torch.rand(run + 1)  # what happened before must not matter
        engine(tmp_path / str(run), max_epochs=1).fit(model, datamodule=few())
        weights.append(torch.cat([value.flatten().float() for value in model.state_dict().values()]).nan_to_num())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


class StopAfter(Callback):
    """Interrupts a training at the end of an epoch, as a user would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        del pl_module
        trainer.should_stop = trainer.current_epoch >= self.epoch


def test_a_resumed_training_ends_like_an_uninterrupted_one(entry, few, tmp_path):
    whole = entry.build()
    engine(tmp_path / "whole", max_epochs=3).fit(whole, datamodule=few())
    first = engine(tmp_path / "part", max_epochs=3, callbacks=[StopAfter(0)])
    first.fit(entry.build(), datamodule=few())
    resumed = entry.build()
    checkpoint = first.trainer.checkpoint_callback.best_model_path
    engine(tmp_path / "resumed", max_epochs=3).fit(resumed, datamodule=few(), ckpt_path=checkpoint)
    for (name, expected), value in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, expected, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_recipe_ends_a_bare_training_and_a_users_value_wins(trained, few, tmp_path):
    recipe = trained.model.epochs
    assert trained.engine.trainer.max_epochs == recipe
    runner = engine(tmp_path, max_epochs=recipe + 1, callbacks=[StopAfter(0)])
    runner.fit(trained.entry.build(), datamodule=few())
    assert runner.trainer.max_epochs == recipe + 1


def test_training_never_reads_a_test_image(entry, few, tmp_path):
    root = shutil.copytree(few().root, tmp_path / "data")
    for image in [*(root / "bad").iterdir(), *(root / "good_test").iterdir()]:
        image.write_bytes(b"")
    model = entry.build()
    engine(tmp_path, max_epochs=1).fit(model, datamodule=few(root=root))
    assert model.post_processor.image_threshold.isfinite()


class Images(Dataset):
    """A user's own data set: no table of samples, no paths; brightness tells the item."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ImageItem:
        generator = torch.Generator().manual_seed(index)
        return ImageItem(image=torch.rand(3, 64, 64, generator=generator), gt_label=torch.tensor(self.labels[index]))


def loader(labels: list[int], **arguments) -> DataLoader:
    return DataLoader(Images(labels), collate_fn=ImageBatch.collate, **({"batch_size": 8} | arguments))


@pytest.mark.parametrize("arguments", [{"shuffle": True}, {"batch_size": 1}], ids=["shuffled", "batch-size-1"])
def test_it_trains_on_a_data_loader_of_ones_own(entry, tmp_path, arguments):
    model = entry.build()
    engine(tmp_path, max_epochs=1).fit(model, train_dataloaders=loader([0] * 12, **arguments))
    assert model.post_processor.image_threshold.isfinite()


def test_it_never_learns_or_calibrates_on_labelled_defects(entry, tmp_path):
    with pytest.raises(ValueError, match="labelled anomalous"):
        engine(tmp_path, max_epochs=1).fit(entry.build(), train_dataloaders=loader([0] * 11 + [1]))


def test_held_out_images_never_reach_a_step(entry, few, tmp_path):
    seen: set[str] = set()

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            del trainer, pl_module, batch_idx
            seen.update(batch.image_path)

    model = entry.build()
    runner = engine(tmp_path, max_epochs=1, callbacks=[Watch()])
    runner.fit(model, datamodule=few())
    files = {str(path) for path in runner.trainer.datamodule.train_data.samples["image_path"]}
    assert len(files) == 12
    assert len(seen) == len(files) - round(12 * model.held_out)
    assert seen <= files


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_ends_finite_and_finds_defects(entry, parts, tmp_path, precision):
    model = entry.build()
    runner = engine(tmp_path, precision=precision)
    data = parts()
    runner.fit(model, datamodule=data)
    assert all(value.isfinite().all() for name, value in model.state_dict().items() if "post_processor" not in name)
    metrics = runner.test(model, datamodule=data, verbose=False)[0]
    assert metrics["image_AUROC"] >= entry.image_auroc - 0.1
    assert {p.dtype for p in model.parameters()} == {torch.float32}
