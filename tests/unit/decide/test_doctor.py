# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The report of a machine: what it says is so, and nothing that is missing stops it."""

import builtins
import hashlib
import json
from importlib.metadata import version
from importlib.resources import files

from anomalib_vmpfd.cli import main
from anomalib_vmpfd.decide import doctor
from anomalib_vmpfd.weights import loading


def test_it_tells_versions_runtimes_weights_and_memory(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for name in ("anomalib-vmpfd", "anomalib", "torch"):
        assert report["versions"][name] == version(name)
    assert set(report["extra export"]) == {"onnx", "onnxscript", "onnxruntime", "openvino", "nncf"}
    assert "CPUExecutionProvider" in report["runtimes"]["ONNX Runtime"]
    assert report["selective scan"]["cpu"] in {"C kernel", "PyTorch"}
    for name, told in report["weights"].items():
        assert hashlib.sha256((files("anomalib_vmpfd.weights") / name).read_bytes()).hexdigest() == told
    assert {"pdn_small.safetensors", "efficientnet_lite2.safetensors"} == set(report["weights"])
    assert float(report["memory"]["disk free"].split()[0]) > 0


def test_the_text_says_the_same(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert ["anomalib", version("anomalib")] in [line.split() for line in text.splitlines()]
    assert {"versions", "processor", "runtimes", "weights", "memory"} <= set(text.splitlines())


def test_damaged_weights_are_said_and_are_an_error(capsys, monkeypatch):
    monkeypatch.setattr(loading, "_bundled_sums", lambda: {"pdn_small.safetensors": "0" * 64})
    assert main(["doctor"]) == 1
    assert "pdn_small.safetensors are damaged" in capsys.readouterr().out


def test_what_is_not_installed_is_said(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name in {"onnxruntime", "openvino"}:
            msg = f"No module named {name!r}"
            raise ImportError(msg)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    report = doctor.examine()
    assert report["runtimes"]["ONNX Runtime"] == "not available (No module named 'onnxruntime')"
    assert report["runtimes"]["OpenVINO"].startswith("not available")
    assert "not installed" in doctor.as_text({"x": {"y": doctor._version("no-such-package-here")}})
