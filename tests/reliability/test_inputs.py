# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Bad images, masks and folders, through anomalib's datamodules: they work as documented, or one error names them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from PIL import Image
from torch.utils.data import DataLoader

import tiny
from anomalib_vmpfd import MVTec
from anomalib_vmpfd.engine.image_errors import ImageError
from anomalib_vmpfd.engine.mask_pairs import MaskPairError


def scores_of_files(model, folder: Path, tmp_path: Path, **arguments) -> dict[str, float]:
    """Scores by file name, as ``anomalib predict`` gives them."""
    batches = tiny.engine(tmp_path / "out", **arguments).predict(model, data_path=folder)
    return {
        Path(path).name: score
        for batch in batches
        for path, score in zip(batch.image_path, batch.pred_score.flatten().tolist(), strict=True)
    }


def grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture[..., :1], 3, axis=2)


def few_colours(picture: np.ndarray) -> np.ndarray:
    return grey(picture // 8 * 8)


def exif(path: Path, image: Image.Image) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # turn by 90 degrees
    image.save(path, exif=tags)


def cmyk(path: Path, image: Image.Image) -> None:
    channels = np.asarray(image)
    Image.fromarray(np.dstack([255 - channels, 0 * channels[..., :1]]), "CMYK").save(path)


def alpha(path: Path, image: Image.Image) -> None:
    image.putalpha(Image.fromarray(tiny.texture(5)[..., 0]))
    image.save(path)


def deep_colour(path: Path, image: Image.Image) -> None:
    import cv2

    cv2.imwrite(str(path), np.asarray(image)[..., ::-1].astype(np.uint16) * 257)


KINDS = {
    "palette image": ("p.png", few_colours, lambda path, image: image.quantize(64).save(path)),
    "greyscale image": ("l.png", grey, lambda path, image: image.convert("L").save(path)),
    "image with alpha": ("rgba.png", lambda p: p, alpha),
    "CMYK image": ("cmyk.tif", lambda p: p, cmyk),
    "EXIF-rotated image": ("exif.png", lambda p: p, exif),
    "16-bit colour image": ("rgb16.png", lambda p: p, deep_colour),
    "unicode name": ("Prüfling 部品 ✓ 'a' \"b\".png", lambda p: p, lambda path, image: image.save(path)),
    "name of 255 bytes": (f"{'n' * 251}.png", lambda p: p, lambda path, image: image.save(path)),
}
SHALL = {
    "palette image": "scores as the same colours in RGB",
    "greyscale image": "scores as the same grey in RGB",
    "image with alpha": "scores as without; transparency is ignored",
    "CMYK image": "scores as converted to RGB",
    "EXIF-rotated image": "scores as stored; the tag is ignored in training and test alike",
    "16-bit colour image": "scores as its upper 8 bits",
    "unicode name": "scores as under a plain name",
    "name of 255 bytes": "scores as under a plain name",
}


@pytest.fixture(scope="module")
def seen(trained, tmp_path_factory):
    """Scores of the images of every kind, and of their twins in plain RGB."""
    folder, twins = tmp_path_factory.mktemp("kinds"), tmp_path_factory.mktemp("twins")
    for index, (name, picture, write) in enumerate(KINDS.values()):
        pixels = picture(tiny.texture(300 + index))
        write(folder / name, Image.fromarray(pixels))
        tiny.save(twins / f"{index}.png", pixels)
    tiny.save(folder / "pixel.png", np.full((1, 1, 3), 90, np.uint8))
    Image.fromarray(tiny.texture(1)).resize((5000, 4000)).save(folder / "big.jpg")
    out = tmp_path_factory.mktemp("seen")
    return scores_of_files(trained[0], folder, out), scores_of_files(trained[0], twins, out)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_another_kind_scores_as_its_pixels_in_rgb(kind, seen, case):
    case(kind, SHALL[kind])
    scores, twins = seen
    index = list(KINDS).index(kind)
    assert scores[KINDS[kind][0]] == pytest.approx(twins[f"{index}.png"], abs=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("1-pixel image", "pixel.png"), ("20-megapixel image", "big.jpg")])
def test_an_image_of_any_size_gets_a_score(kind, name, seen, case):
    case(kind, "is resized and scored")
    assert 0 < seen[0][name] < 1


def test_images_of_all_kinds_train(tmp_path, case):
    case("training images of all kinds and sizes together", "trains; every image is resized")
    root = tiny.normals(tmp_path / "data", 10)
    for index, (name, picture, write) in enumerate(KINDS.values()):
        write(root / "good" / name, Image.fromarray(picture(tiny.texture(index, 50 + 7 * index))))
    model = tiny.model()
    tiny.engine(tmp_path).fit(model, datamodule=tiny.data(root))
    assert model.post_processor.image_threshold.isfinite()
    assert len(scores_of_files(model, root / "good", tmp_path)) == 18


def test_heatmaps_of_odd_names_are_written(trained, tmp_path, case):
    case("unicode and 255-byte names with heatmaps", "heatmaps are written under the same names")
    names = [KINDS[kind][0] for kind in ("unicode name", "name of 255 bytes")]
    for index, name in enumerate(names):
        tiny.save(tmp_path / "in" / name, tiny.texture(index))
    model = tiny.model(visualizer=True)
    model.load_state_dict(trained[0].state_dict())
    scores_of_files(model, tmp_path / "in", tmp_path)
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == set(names)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "truncated image": truncate,
    "zero-byte image": lambda path: path.write_bytes(b""),
    "text file named .png": lambda path: path.write_text("not an image"),
    "image with a flipped byte": flip,
    "16-bit greyscale image": lambda path: tiny.save(path, np.full((64, 64), 4000, np.uint16)),
    "image of floats": lambda path: Image.fromarray(np.full((64, 64), 0.5, np.float32)).save(path, "TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_training_image_is_named(damage, tmp_path, case):
    root = tiny.normals(tmp_path / "data")
    DAMAGE[damage](root / "good" / "007.png")
    with pytest.raises(ImageError, match=r"good/007\.png.*(Replace or remove|Convert all)") as error:
        tiny.engine(tmp_path).fit(tiny.model(), datamodule=tiny.data(root))
    case(f"{damage} in training", "one error names file and cure", str(error.value).replace(str(tmp_path), ""))
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["truncated image", "16-bit greyscale image"])
def test_a_damaged_test_image_is_named(damage, workers, parts, trained, tmp_path, case):
    root = shutil.copytree(parts, tmp_path / "data")
    DAMAGE[damage](root / "bad" / "001.png")
    with pytest.raises(ImageError, match=r"bad/001\.png") as error:
        tiny.engine(tmp_path).test(trained[0], datamodule=tiny.data(root, num_workers=workers))
    message = str(error.value).replace(str(tmp_path), "")
    case(f"{damage} in a test, {workers} workers", "one error names file and cure", message)


def test_a_damaged_image_to_predict_is_named(trained, tmp_path, case):
    for index in range(3):
        tiny.save(tmp_path / "in" / f"{index}.png", tiny.texture(index))
    (tmp_path / "in" / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"1\.png \(not an image\)") as error:
        scores_of_files(trained[0], tmp_path / "in", tmp_path)
    case("damaged image to predict", "one error names file and cure", str(error.value).replace(str(tmp_path), ""))


def test_a_damaged_mask_is_named(parts, trained, tmp_path, case):
    root = shutil.copytree(parts, tmp_path / "data")
    truncate(root / "mask" / "002.png")
    with pytest.raises(ImageError, match=r"mask/002\.png") as error:
        tiny.engine(tmp_path).test(trained[0], datamodule=tiny.data(root))
    case("truncated mask", "one error names file and cure", str(error.value).replace(str(tmp_path), ""))


def double(mask: np.ndarray) -> np.ndarray:
    return mask.repeat(2, 0).repeat(2, 1)


MASKS = {
    "mask of twice the size": double,
    "mask with 1 for a defect": lambda m: m // 255,
    "mask with values between 0 and 255": lambda m: np.where(m > 0, 128, 0).astype(np.uint8),
    "mask in colour": lambda m: np.dstack([m, m // 2, m]),
}


@pytest.fixture(scope="module")
def metrics(trained, parts, tmp_path_factory):
    return tiny.engine(tmp_path_factory.mktemp("m")).test(trained[0], datamodule=tiny.data(parts), verbose=False)[0]


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_another_form_mean_the_same(kind, metrics, parts, trained, tmp_path, case):
    case(kind, "same pixel metrics as with 0 and 255 at the image's size")
    root = shutil.copytree(parts, tmp_path / "data")
    for path in (root / "mask").iterdir():
        tiny.save(path, MASKS[kind](np.asarray(Image.open(path))))
    again = tiny.engine(tmp_path).test(trained[0], datamodule=tiny.data(root), verbose=False)[0]
    assert again == pytest.approx(metrics, abs=1e-6)
    assert metrics["pixel_AUROC"] > 0.8


def mask_of_another_number(root: Path) -> None:
    (root / "mask" / "001.png").rename(root / "mask" / "0010_mask.png")


MASK_FAULTS = {
    "defect without a mask": (lambda root: (root / "mask" / "002.png").unlink(), "no mask of their name"),
    "mask of another image": (mask_of_another_number, "with .*0010_mask|no mask of their name"),
}


@pytest.mark.parametrize("kind", MASK_FAULTS)
def test_masks_that_do_not_fit_are_named_with_their_images(kind, parts, tmp_path, case):
    root = shutil.copytree(parts, tmp_path / "data")
    damage, message = MASK_FAULTS[kind]
    damage(root)
    with pytest.raises(MaskPairError, match=message) as error:
        tiny.engine(tmp_path).fit(tiny.model(), datamodule=tiny.data(root))
    case(kind, "one error names image, mask and cure", str(error.value).replace(str(tmp_path), ""))


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_training_images_are_enough(count, tmp_path, case, caplog):
    root = tiny.normals(tmp_path / "data", count)
    model = tiny.model()
    tiny.engine(tmp_path).fit(model, datamodule=tiny.data(root))
    said = [record.message for record in caplog.records if "Give at least 10 normal images" in record.message]
    assert said
    case(f"{count} training image{'s' * (count > 1)}", "trains, with one warning that names the cure", said[0])
    scores = model.eval()(torch.rand(2, 3, tiny.SIDE, tiny.SIDE)).pred_score
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize(("kind", "value"), [("constant", 120), ("all-black", 0), ("all-white", 255)])
def test_constant_training_images_find_what_is_not_constant(kind, value, tmp_path, case):
    case(
        f"{kind} training images", "trains; scores stay finite, and a spot is anomalous and scores above a plain image"
    )
    root = tmp_path / "data"
    for index in range(12):
        tiny.save(root / "good" / f"{index:03}.png", np.full((tiny.SIDE, tiny.SIDE, 3), value, np.uint8))
    model = tiny.model()
    tiny.engine(tmp_path, max_epochs=2).fit(model, datamodule=tiny.data(root))
    assert all(parameter.isfinite().all() for parameter in model.state_dict().values())
    images = torch.full((2, 3, tiny.SIDE, tiny.SIDE), value / 255)
    images[1, :, 20:40, 20:40] = 0.5 if value in {0, 255} else 1.0
    with torch.no_grad():
        seen = model.eval()(images)
    assert seen.anomaly_map.isfinite().all()
    assert seen.pred_score[1] > seen.pred_score[0]
    assert seen.pred_label[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_cannot_be_judged_never_passes_as_normal(value, trained, case):
    case(f"tensor with {value}", "anomalous, with the highest score there is; the other images of the batch as ever")
    model = trained[0].eval()
    images = torch.stack([torch.tensor(tiny.texture(i) / 255).float().permute(2, 0, 1) for i in range(3)])
    with torch.no_grad():
        before = model(images)
        images[1, :, 30, 30] = value
        seen = model(images)
    assert seen.pred_label[1]
    assert seen.pred_score[1] > before.pred_score.max()
    assert seen.anomaly_map.isfinite().all()
    torch.testing.assert_close(seen.pred_score[[0, 2]], before.pred_score[[0, 2]])


WRONG_IMAGES = {
    "tensor of 0 to 255 in place of 0 to 1": lambda p: torch.tensor(p).float().permute(2, 0, 1)[None],
    "tensor of uint8": lambda p: torch.tensor(p).permute(2, 0, 1)[None],
    "image normalised for a backbone": lambda p: (torch.tensor(p).float().permute(2, 0, 1)[None] / 255 - 0.45) / 0.225,
    "tensor with 1e30": lambda p: torch.tensor(p).float().permute(2, 0, 1)[None] / 255 * 1e30,
    "array in place of a tensor": lambda p: p,
    "image without a batch": lambda p: torch.tensor(p).float().permute(2, 0, 1) / 255,
    "channels last": lambda p: torch.tensor(p).float()[None] / 255,
}


@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_what_is_no_batch_of_images_in_0_to_1_is_refused(kind, trained, case):
    with pytest.raises((TypeError, ValueError), match=r"Images must .*(give|divide|needs|got)") as error:
        trained[0].eval()(WRONG_IMAGES[kind](tiny.texture(1)))
    case(kind, "one error names the cure", error.value)


def test_batches_of_any_size_and_images_of_unequal_sizes_score_the_same(trained, tmp_path, case):
    case("batches of unequal sizes, images of unequal sizes", "the same scores in any batch")
    for index in range(7):
        tiny.save(tmp_path / "in" / f"{index}.png", tiny.texture(index, 40 + 9 * index))
    seen = []
    for size in (1, 3, 7):
        dataset = PredictDataset(tmp_path / "in")
        dataset.transform = None
        loader = DataLoader(dataset, batch_size=size, collate_fn=dataset.collate_fn)
        if size == 1:
            batches = tiny.engine(tmp_path / "out").predict(trained[0], dataloaders=loader)
        else:
            from torchvision.transforms.v2 import Resize

            dataset = PredictDataset(tmp_path / "in", transform=Resize((tiny.SIDE, tiny.SIDE), antialias=True))
            loader = DataLoader(dataset, batch_size=size, collate_fn=dataset.collate_fn)
            batches = tiny.engine(tmp_path / "out").predict(trained[0], dataloaders=loader)
        seen.append(torch.cat([batch.pred_score.flatten() for batch in batches]))
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen[2], seen[0], rtol=1e-3, atol=1e-4)


def test_a_category_that_does_not_exist_is_named_with_those_there_are(tmp_path, case):
    (tmp_path / "screw" / "train" / "good").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no category 'scrw'. Did you mean 'screw'\? .*: screw\.") as error:
        tiny.engine(tmp_path / "out").fit(tiny.model(), datamodule=MVTec(root=tmp_path, category="scrw"))
    case("category that does not exist", "one error names the others", str(error.value).replace(str(tmp_path), ""))


def test_a_missing_category_that_cannot_be_downloaded_names_the_folder(tmp_path, monkeypatch, case):
    def offline(*_args, **_kwargs) -> None:
        msg = "Name or service not known"
        raise OSError(msg)

    monkeypatch.setattr("anomalib.data.utils.download.urlretrieve", offline)
    with pytest.raises(OSError, match=r"There is no folder .*bottle, .*not known.* as root") as error:
        tiny.engine(tmp_path / "out").fit(tiny.model(), datamodule=MVTec(root=tmp_path / "mvtec", category="bottle"))
    message = str(error.value).replace(str(tmp_path), "")
    case("missing data set without a network", "one error names the folder and the cure", message)


def mvtec(root: Path, *folders: str) -> MVTec:
    for folder in folders:
        for index in range(4):
            tiny.save(root / "screw" / folder / f"{index:03}.png", tiny.texture(index))
    (root / "screw").mkdir(parents=True, exist_ok=True)
    return MVTec(root=root, category="screw", num_workers=0, train_batch_size=4, eval_batch_size=4)


@pytest.mark.parametrize(
    ("kind", "folders"),
    [("MVTec folder without images", ()), ("MVTec folder without training images", ("test/good",))],
)
def test_an_empty_training_split_is_named(kind, folders, tmp_path, case):
    with pytest.raises((RuntimeError, ValueError), match=r"screw|train") as error:
        tiny.engine(tmp_path).fit(tiny.model(), datamodule=mvtec(tmp_path / "data", *folders))
    case(kind, "one error", f"{error.typename}: {error.value}".replace(str(tmp_path), ""))


@pytest.mark.parametrize(("kind", "name"), [("unicode", "Prüfteile"), ("very long", "/".join(["n" * 200] * 3))])
def test_a_folder_of_an_odd_name_is_named(kind, name, tmp_path, case):
    root = tiny.normals(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"Path (is too long|contains non-printable characters): .*(nnn|Prüfteile)"
    ) as error:
        tiny.engine(tmp_path).fit(tiny.model(), datamodule=tiny.data(root))
    message = str(error.value).replace(str(tmp_path), "")[:150]
    case(f"data folder of a {kind} name", "anomalib's error, before the model is reached", message)


def test_no_defects_to_test_with_is_no_hindrance(tmp_path, case):
    case("MVTec folder without defects", "trains, and tests with what there is")
    datamodule = mvtec(tmp_path / "data", "train/good", "test/good")
    model = tiny.model()
    runner = tiny.engine(tmp_path)
    runner.fit(model, datamodule=datamodule)
    assert runner.test(model, datamodule=datamodule, verbose=False)
    assert model.post_processor.image_threshold.isfinite()


@pytest.mark.parametrize("where", ["data", "results"])
def test_read_only_folders(where, tmp_path, case, read_only):
    root, results = tiny.normals(tmp_path / "data"), tmp_path / "results"
    results.mkdir()
    read_only(root if where == "data" else results)
    model, runner = tiny.model(), tiny.engine(results)
    if where == "data":
        case("read-only data folder", "trains; nothing is written there")
        runner.fit(model, datamodule=tiny.data(root))
        assert model.post_processor.image_threshold.isfinite()
    else:
        with pytest.raises(OSError, match=str(results)) as error:
            runner.fit(model, datamodule=tiny.data(root))
        message = str(error.value).replace(str(tmp_path), "")
        case("read-only results folder", "one error, anomalib's, names the folder", message)
