# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The shipped configs, read by anomalib's own command line."""

from pathlib import Path

import pytest
from anomalib.cli.cli import AnomalibCLI

import anomalib_vmpfd

CONFIGS = Path(__file__).parents[2] / "configs"
DATA = sorted((CONFIGS / "data").glob("*.yaml"))
MODELS = sorted(CONFIGS.glob("*.yaml"))


@pytest.fixture(scope="module")
def cli() -> AnomalibCLI:
    """Command line whose parser serves all tests; building it takes seconds."""
    anomalib_vmpfd.register()
    return AnomalibCLI(args=["train", "--model", "VmpfdAd", "--data", "MVTec"], run=False)


def test_there_is_one_for_each_data_set() -> None:
    names = {path.stem for path in DATA}
    assert names == {"mvtec_ad", "visa", "btad", "mvtec_loco", "kolektor", "folder", "magnetic_tile"}


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_data(cli: AnomalibCLI, path: Path, tmp_path: Path) -> None:
    """The datamodule accepts it, a root given behind it counts, and no test image is used for the threshold."""
    arguments = ["train", "--model", "VmpfdAd", "--data", str(path), "--data.root", str(tmp_path)]
    config = cli.parser.parse_args(arguments)
    datamodule = cli.parser.instantiate_classes(config)["train"]["data"]
    assert Path(datamodule.root) == tmp_path
    assert datamodule.val_split_mode in {"from_train", "from_dir"}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models(cli: AnomalibCLI, path: Path) -> None:
    config = cli.parser.parse_args(["train", "--config", str(path)])
    model = cli.parser.instantiate_classes(config)["train"]["model"]
    assert isinstance(model, anomalib_vmpfd.VmpfdAd)


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
