# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The shipped configs, read by anomalib's own command line."""

import json
import re
import shlex
from pathlib import Path

import pytest
from anomalib.cli.cli import AnomalibCLI

import anomalib_vmpfd
from tiny import save, texture

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
DATA = sorted((CONFIGS / "data").glob("*.yaml"))
MODELS = sorted(CONFIGS.glob("*.yaml"))


@pytest.fixture(scope="module")
def cli() -> AnomalibCLI:
    """Command line whose parser serves all tests; building it takes seconds."""
    anomalib_vmpfd.register()
    return AnomalibCLI(args=["train", "--model", "VmpfdAd", "--data", "MVTec"], run=False)


def test_there_is_one_for_each_data_set() -> None:
    names = {path.stem for path in DATA}
    own = {"kolektor", "folder", "few_defects", "magnetic_tile"}
    assert names == {"mvtec_ad", "mvtec_ad_2", "visa", "btad", "mvtec_loco", "real_iad"} | own


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_data(cli: AnomalibCLI, path: Path, tmp_path: Path) -> None:
    """The datamodule accepts it, a root given behind it counts, and no test image is used for the threshold."""
    arguments = ["train", "--model", "VmpfdAd", "--data", str(path), "--data.root", str(tmp_path)]
    config = cli.parser.parse_args(arguments)
    datamodule = cli.parser.instantiate_classes(config)["train"]["data"]
    assert Path(datamodule.root) == tmp_path
    # MVTec AD 2 has validation images in place of a mode, see below
    assert datamodule.val_split_mode in {"from_train", "from_dir"} or path.stem == "mvtec_ad_2"


def used_images(cli: AnomalibCLI, root: Path, name: str) -> dict[str, list[str]]:
    """Files, relative to ``root``, that a config trains, sets thresholds and tests on."""
    words = ["train", "--model", "VmpfdAd", "--data", str(CONFIGS / "data" / f"{name}.yaml"), "--data.root", str(root)]
    datamodule = cli.parser.instantiate_classes(cli.parser.parse_args(words))["train"]["data"]
    datamodule.prepare_data()
    datamodule.setup()
    loaders = {
        "train": datamodule.train_dataloader,
        "val": datamodule.val_dataloader,
        "test": datamodule.test_dataloader,
    }
    datasets = {use: loader().dataset for use, loader in loaders.items()}
    return {
        use: sorted(Path(path).relative_to(root).as_posix() for path in dataset.samples.image_path)
        for use, dataset in datasets.items()
    }


def test_mvtec_ad_2_tests_all_public_images_and_validates_on_its_own(cli: AnomalibCLI, tmp_path: Path) -> None:
    folders = ("train/good", "validation/good", "test_public/good", "test_public/bad", "test_private")
    for folder in (*folders, "test_private_mixed"):
        save(tmp_path / "can" / folder / "000.png", texture(0))
    save(tmp_path / "can" / "test_public" / "ground_truth" / "bad" / "000_mask.png", texture(0))
    assert used_images(cli, tmp_path, "mvtec_ad_2") == {
        "train": ["can/train/good/000.png"],
        "val": ["can/validation/good/000.png"],
        "test": ["can/test_public/bad/000.png", "can/test_public/good/000.png"],
    }


def test_real_iad_tests_normal_and_anomalous_images_and_validates_on_neither(cli: AnomalibCLI, tmp_path: Path) -> None:
    listed: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    for split, kind, number in (("train", "OK", 1), ("train", "OK", 2), ("test", "OK", 3), ("test", "NG", 4)):
        entry = {"anomaly_class": kind, "image_path": f"{kind}/{number}.png", "mask_path": None}
        save(tmp_path / "realiad_1024" / "audiojack" / f"{kind}/{number}.png", texture(number))
        if kind == "NG":
            entry["mask_path"] = f"{kind}/{number}_mask.png"
            save(tmp_path / "realiad_1024" / "audiojack" / entry["mask_path"], texture(number))
        listed[split].append(entry)
    metadata = tmp_path / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps(listed), encoding="utf-8")
    used = used_images(cli, tmp_path, "real_iad")
    folder = "realiad_1024/audiojack"
    assert used["test"] == [f"{folder}/NG/4.png", f"{folder}/OK/3.png"]
    assert sorted(used["train"] + used["val"]) == [f"{folder}/OK/1.png", f"{folder}/OK/2.png"]
    assert len(used["val"]) == 1


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models(cli: AnomalibCLI, path: Path) -> None:
    config = cli.parser.parse_args(["train", "--config", str(path)])
    model = cli.parser.instantiate_classes(config)["train"]["model"]
    wanted = {"prn": anomalib_vmpfd.Prn, "mmaerec": anomalib_vmpfd.Mmaerec}
    assert type(model) is wanted.get(path.stem.partition("_")[0], anomalib_vmpfd.VmpfdAd)


def test_the_papers_mmaerec(cli: AnomalibCLI) -> None:
    """Sections 2.2 to 3.3 of its paper; only parsed, as a WideResNet50-2 takes seconds to build and is built above."""
    config = cli.parser.parse_args(["train", "--config", str(CONFIGS / "mmaerec_paper.yaml")]).train
    given = config.model.init_args
    assert (given.num_items, given.base_width, given.attention, given.edges) == (30, 128, "coordinate", True)
    assert (given.l2, given.theta, given.alpha, given.mu) == (1.0, 1.0, 2e-4, 1e-3)
    assert given.extractor_args["layers"] == ["act1", "layer1", "layer2", "layer3"]
    assert (given.epochs, config.data.init_args.train_batch_size) == (600, 4)
    assert config.data.init_args.val_split_mode == "none", "the model holds out normals itself"
    assert config.trainer.limit_val_batches == 0, "there is no validation set to load"


def readme_command(name: str) -> list[str]:
    """Words of the README's command with a config, less ``anomalib``."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return shlex.split(re.search(rf"^anomalib (train --config configs/{name}.*)$", text, re.MULTILINE)[1])


def test_the_readmes_command_is_the_papers_protocol(cli: AnomalibCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 1: batches of 48, 200 epochs, AdamW at 0.001; nine tenths of the normals are learnt, not 81 %."""
    monkeypatch.chdir(REPOSITORY)
    config = cli.parser.parse_args(readme_command("vmpfd_ad_paper"))
    objects = cli.parser.instantiate_classes(config)["train"]
    model, data = objects["model"], objects["data"]
    assert isinstance(data, anomalib_vmpfd.MVTec)
    assert (data.category, data.train_batch_size, data.seed) == ("screw", 48, 42)
    assert data.val_split_mode == "none", "the model holds out normals itself"
    assert (model.held_out, model.epochs, model.lr, model.lr_schedule, model.weight_decay) == (
        0.1,
        200,
        1e-3,
        "constant",
        1e-4,
    )
    assert config.train.trainer.limit_val_batches == 0, "there is no validation set to load"
    assert config.train.trainer.max_epochs in {None, 200}
    network = model.model
    assert network.descriptor.name == "pdn_small"
    assert network.descriptor.grid.shape == network.encoder.grid.shape == (8, 8)
    assert (network.encoder.reads, len(network.encoder.network.layers)) == ("pixels", 4)
    assert network.density.target == "self"
    assert network.reconstruction.lambda_mse == 5.0
    assert (network.map_weights, network.image_score) == ((0.5, 0.5), "map"), "equations 20 and 21"


def test_prns_command_is_its_papers_protocol(cli: AnomalibCLI, tmp_path: Path) -> None:
    """Section 4.1 and appendix A.2: ten known defects, 700 epochs, Adam at 0.0001, batches of 64 of which 32 normal."""
    words = ["train", "--config", str(CONFIGS / "prn_paper.yaml"), "--data.root", str(tmp_path), "--data.name", "screw"]
    objects = cli.parser.instantiate_classes(cli.parser.parse_args(words))["train"]
    model, data = objects["model"], objects["data"]
    assert (data.name, data.known_defects, data.removed_defects, data.train_batch_size) == ("screw", 10, 10, 32)
    assert data.val_split_mode == "none", "the model holds out normals itself"
    assert (model.recipe_epochs, model.lr, model.lr_schedule, model.weight_decay) == (700, 1e-4, "constant", 1e-5)
    assert (model.prototypes, model.model.lambda_focal) == (0.1, 5.0)
    assert [level.channels for level in model.model.descriptor.levels] == [64, 128, 256]
    assert [attend[0].embed.in_channels for attend in model.model.attention] == [128, 256, 512]
    assert {len(attend) for attend in model.model.attention} == {3}


def test_one_argument_of_a_part_may_differ_from_the_config(cli: AnomalibCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stay those of the config."""
    monkeypatch.chdir(REPOSITORY)
    words = [*readme_command("vmpfd_ad_paper"), "--model.descriptor_args.weights", "official"]
    arguments = cli.parser.parse_args(words).train.model.init_args.descriptor_args
    assert dict(arguments) == {"grid": 8, "weights": "official"}


def test_magnetic_tile_masks_belong_to_their_images(cli: AnomalibCLI, real_data: Path) -> None:
    """`Folder` pairs masks and images by their place in the sorted names: with real files, five defect folders."""
    arguments = [
        "--data",
        str(CONFIGS / "data" / "magnetic_tile.yaml"),
        "--data.root",
        str(real_data / "magnetic_tile"),
    ]
    config = cli.parser.parse_args(["train", "--model", "VmpfdAd", *arguments])
    datamodule = cli.parser.instantiate_classes(config)["train"]["data"]
    datamodule.setup()
    defects = datamodule.test_data.samples.query("label_index == 1")
    assert len(defects) == 388
    for row in defects.itertuples():
        image, mask = Path(row.image_path), Path(row.mask_path)
        assert (image.parent.name, f"{image.stem}_mask") == (mask.parent.name, mask.stem)
    assert len(datamodule.train_data) + len(datamodule.val_data) == 622
    assert not datamodule.val_data.samples["label_index"].any()
