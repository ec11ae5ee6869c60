# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""What an OpenVINO file needs beyond what anomalib writes: little memory for batches, and float32 on any processor."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET  # noqa: S405 - for files that OpenVINO wrote a moment ago

from .export_metadata import write_beside
from .rebuild import KEY

NO_OPERATIONS = {"Const", "Parameter", "Result"}
# how OpenVINO's own transformations mark an operation that must not be computed in 16 bits
STAYS_IN_FLOAT32 = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"}


def finish_openvino(path: Path, content: dict[str, Any]) -> None:
    """Rewrite an OpenVINO file to be computed image by image and in float32, with metadata in it and beside it.

    Args:
        path (Path): The ``.xml`` file of a model of one input ``(B, 3, H, W)`` whose outputs begin with ``B``.
        content (dict[str, Any]): The metadata, the property ``anomalib_vmpfd`` of the model.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        _image_by_image(path, written)
        _mark(written, content)
        path.unlink()  # whenever this ends, no graph lies beside the weights of another
        for suffix in (".bin", ".xml"):
            written.with_suffix(suffix).replace(path.with_suffix(suffix))
    write_beside(path, content)


def _image_by_image(path: Path, written: Path) -> None:
    """Let a model take the images of a batch one after another, in a ``Loop``.

    OpenVINO shares memory between results only where it knows their shapes before it runs. With a free batch it knows
    none, and keeps them all, for all images. Of one image it knows every shape from the resize on.
    """
    import openvino
    from openvino import opset13

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file of the weights is replaced
    body = core.read_model(path)
    (image,) = body.get_parameters()
    images = opset13.parameter(image.partial_shape, image.element_type, name=image.friendly_name)
    images.output(0).set_names(body.input().names)
    body.reshape([1, *list(image.partial_shape)[1:]])
    _product_for_einsum(body)
    number = opset13.gather(opset13.shape_of(images), opset13.constant(0), opset13.constant(0))
    go_on = opset13.constant([True])
    body.add_results([opset13.result(go_on)])
    # a TensorIterator would do, but cannot hold the one that a scan is
    loop = opset13.loop(number, go_on)
    loop.set_function(body)
    loop.set_special_body_ports([-1, len(body.outputs) - 1])
    loop.set_sliced_input(image, images.output(0), start=0, stride=1, part_size=1, end=-1, axis=0)
    results = []
    for each in body.get_results()[:-1]:
        of_all = loop.get_concatenated_slices(each.output(0), start=0, stride=1, part_size=1, end=-1, axis=0)
        of_all.set_names(each.output(0).names)
        results.append(opset13.result(of_all))
    openvino.save_model(openvino.Model(results, [images], body.friendly_name), written, compress_to_fp16=False)


def _product_for_einsum(model: Any) -> None:  # noqa: ANN401 - openvino is an extra
    """Replace ``kb,kd->bd`` by a product: what OpenVINO puts in place of an ``Einsum`` bears no mark of float32.

    The matrix stays on the left and untransposed, so that no second, transposed one is held.
    """
    from openvino import opset13

    for each in model.get_ordered_ops():
        if each.get_type_name() == "Einsum" and each.get_attributes()["equation"] == "kb,kd->bd":
            z, components = each.input_values()
            product = opset13.matmul(components, z, transpose_a=True, transpose_b=False)
            each.output(0).replace(opset13.transpose(product, [1, 0]).output(0))


def _mark(path: Path, content: dict[str, Any]) -> None:
    """Write metadata into an OpenVINO file, and mark every operation to be computed in float32.

    Where a processor multiplies bfloat16, OpenVINO would otherwise compute in that. What it rewrites when it compiles
    loses its mark; of ``VmpfdAd``'s default that is nothing. A resize with antialiasing gets the mode that has it:
    OpenVINO reads ONNX's as one without.
    """
    tree = ET.parse(path)  # noqa: S314
    root = tree.getroot()
    for layer in root.iter("layer"):  # also those inside of others
        resize = layer.find("data[@antialias='true']") if layer.get("type") == "Interpolate" else None
        if resize is not None:
            resize.set("mode", "bilinear_pillow")
        if layer.get("type") not in NO_OPERATIONS:
            marks = layer.find("rt_info")
            if marks is None:
                marks = ET.Element("rt_info")
                layer.insert(int(layer.find("data") is not None), marks)
            ET.SubElement(marks, "attribute", STAYS_IN_FLOAT32)
    of_model = root.find("rt_info")
    if of_model is None:
        of_model = ET.SubElement(root, "rt_info")
    ET.SubElement(of_model, KEY, {"value": json.dumps(content)})
    tree.write(path, encoding="utf-8", xml_declaration=True)
