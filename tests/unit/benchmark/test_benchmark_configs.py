# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The suites of the repository fit the classes they name, leak nothing and match the published tables."""

from pathlib import Path

import pytest

from anomalib_vmpfd import MODELS, FewDefects
from anomalib_vmpfd.benchmark.report.summary import load_published
from anomalib_vmpfd.benchmark.run.build import parse
from anomalib_vmpfd.benchmark.run.spec import runs
from anomalib_vmpfd.benchmark.suite import load_suite

FOLDER = Path(__file__).parents[3] / "configs" / "benchmark"
OWN = tuple(f".{name}" for name in MODELS)
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_the_promised_suites_are_there():
    assert {"side_by_side", "mvtec_ad", "visa", "btad", "sample"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_argument_exists_and_no_validation_image_is_a_test_image(name):
    suite = load_suite(FOLDER / f"{name}.yaml")
    assert suite.suite == name
    seen = set()
    for spec in runs(suite):
        if new := {(spec.key.model, spec.data), spec.key.dataset} - seen:
            seen |= new
            parse(spec)
        if name == "few_shot":
            # one normal cannot be split; nothing that needs a threshold is read there
            assert spec.data_args["val_split_mode"] == "none"
        elif spec.data_args["val_split_mode"] == "none":
            # the models of this package hold out normals themselves
            assert spec.model.endswith(OWN)
            assert spec.trainer["limit_val_batches"] == 0  # anomalib has no validation set to load then
        else:
            assert spec.data_args["val_split_mode"] == "from_train"
        assert spec.data_args["seed"] == spec.key.seed
        # what is not bundled is the user's, in the folder of --weights
        assert all(Path(path).is_relative_to(suite.weights) for path in spec.missing)
        if spec.model.endswith(OWN):
            assert spec.args["seed"] == spec.key.seed


@pytest.mark.parametrize(("name", "dataset"), [("mvtec_ad", "MVTecAD"), ("visa", "VisA"), ("btad", "BTAD")])
def test_a_suite_covers_its_published_table(name, dataset):
    published = load_published()
    theirs = set(published[published.dataset == dataset].category) - {"mean"}
    (entry,) = load_suite(FOLDER / f"{name}.yaml").datasets
    assert (entry.name, set(entry.categories)) == (dataset, theirs)


def test_paper_and_default_differ_by_their_presets_alone():
    ours = load_suite(FOLDER / "side_by_side.yaml")
    paper = load_suite(FOLDER / "paper.yaml")
    (model,) = paper.models
    assert model.model == ours.models[0].model == "anomalib_vmpfd.VmpfdAd"
    assert model.args["descriptor_args"]["grid"] == 8
    assert model.data_args["train_batch_size"] == 48
    assert paper.trainer["max_epochs"] == 200
    assert [each.categories for each in paper.datasets] == [each.categories for each in ours.datasets]


def test_rows_of_few_defects_differ_in_what_is_known_and_not_in_what_is_tested(real_data):
    suite = load_suite(FOLDER / "few_defects.yaml")
    suite.root = str(real_data)
    tested, known = {}, {}
    for spec in runs(suite):
        if spec.key.seed == 0 and spec.key.category == "tire":
            datamodule = FewDefects(**spec.data_args)
            datamodule.setup()
            tested[spec.key.model] = set(datamodule.test_data.samples.image_path)
            known[spec.key.model] = int((datamodule.train_data.samples.label_index == 1).sum())
    ks = {f"Prn, {k} known": k for k in (0, 1, 5, 10)}
    assert known == ks | {"VmpfdAd": 0, "Patchcore": 0}
    assert len(tested["VmpfdAd"]) == 54 + 87 - 10
    assert all(each == tested["VmpfdAd"] for each in tested.values())


def test_side_by_side_finds_the_real_sets_whole(real_data):
    suite = load_suite(FOLDER / "side_by_side.yaml")
    suite.root = str(real_data)
    found = {}
    for spec in runs(suite):
        if spec.key.model == "EfficientAd":
            parser, config = parse(spec)
            datamodule = parser.instantiate_classes(config).data
            datamodule.setup()
            test = datamodule.test_data.samples
            trained = len(datamodule.train_data) + len(datamodule.val_data)
            found[spec.key.category] = (trained, (test.label_index == 0).sum(), (test.label_index == 1).sum())
            assert not set(datamodule.val_data.samples.image_path) & set(test.image_path)
            assert (test[test.label_index == 1].mask_path.map(lambda path: Path(path).is_file())).all()
            assert Path(config.model.imagenet_dir).is_dir()
    assert found == {
        "screw": (320, 41, 119),
        "magnetic_tile": (622, 330, 388),
        "kolektorsdd": (230, 103, 50),
        "juice_bottle": (335, 54, 142),
    }
