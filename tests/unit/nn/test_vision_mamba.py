# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""ViM block and encoder against a slow transcription of the released code, its checkpoints and its exports."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomalib_vmpfd.nn.cnn_encoder import CnnEncoder
from anomalib_vmpfd.nn.vision_mamba import VisionMambaBlock, VisionMambaEncoder

pytestmark = pytest.mark.numeric


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter away from its symmetric start (equal A and D in both directions, zero biases)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter))
    return module


def vim_block(weights: dict[str, np.ndarray], tokens: np.ndarray, divide: bool) -> np.ndarray:
    """One ViM block for one sequence ``(L, d)`` in NumPy: a loop over directions, tokens and taps."""
    w = {name.removeprefix("mixer."): value for name, value in weights.items()}
    length, dim = tokens.shape
    inner, states = w["A_log"].shape
    rank = math.ceil(dim / 16)

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    normed = tokens / np.sqrt((tokens**2).mean(-1, keepdims=True) + 1e-5) * w["norm.weight"]
    projected = normed @ w["in_proj.weight"].T
    signal, gate = projected[:, :inner], projected[:, inner:]
    total = np.zeros((length, inner))
    for conv, x_proj, dt_proj, log_rates, skip, order in (
        ("conv1d", "x_proj", "dt_proj", "A_log", "D", range(length)),
        ("conv1d_b", "x_proj_b", "dt_proj_b", "A_b_log", "D_b", reversed(range(length))),
    ):
        visited: list[int] = []
        state = np.zeros((inner, states))
        for t in order:
            visited.append(t)
            # tap 3 meets the present token, tap 0 the one three steps back in the direction of travel
            u = w[f"{conv}.bias"].copy()
            for back, past in enumerate(reversed(visited[-4:])):
                u += w[f"{conv}.weight"][:, 0, 3 - back] * signal[past]
            u = silu(u)
            dt, B, C = np.split(w[f"{x_proj}.weight"] @ u, [rank, rank + states])  # noqa: N806
            delta = np.log1p(np.exp(w[f"{dt_proj}.weight"] @ dt + w[f"{dt_proj}.bias"]))
            state = np.exp(delta[:, None] * -np.exp(w[log_rates])) * state + (delta * u)[:, None] * B
            total[t] += (state @ C + w[skip] * u) * silu(gate[t])
    return tokens + (total / 2 if divide else total) @ w["out_proj.weight"].T


@pytest.mark.parametrize("divide", [True, False])
def test_block_matches_the_transcription(divide: bool) -> None:
    block = randomise(VisionMambaBlock(24, divide_directions=divide).double())
    tokens = torch.randn(3, 21, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = {name: tensor.numpy() for name, tensor in block.state_dict().items()}
    expected = np.stack([vim_block(weights, sequence.numpy(), divide) for sequence in tokens])
    with torch.no_grad():
        np.testing.assert_allclose(block(tokens).numpy(), expected, rtol=1e-11, atol=1e-11)


def test_every_parameter_of_both_directions_reaches_the_output() -> None:
    block = randomise(VisionMambaBlock(16))
    tokens = torch.randn(2, 9, 16)
    block(tokens).square().sum().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    before = block(tokens)
    for name, parameter in block.mixer.named_parameters():
        if "_b" in name.split(".")[0]:
            with torch.no_grad():
                parameter.add_(0.5)
                assert not torch.allclose(block(tokens), before, atol=1e-5), name
                parameter.sub_(0.5)


def test_first_token_sees_the_last_only_through_the_backward_direction() -> None:
    block = randomise(VisionMambaBlock(16))
    tokens = torch.randn(1, 30, 16)
    changed = tokens.clone()
    changed[0, -1] += 1.0
    with torch.no_grad():
        assert (block(changed) - block(tokens))[0, 0].abs().max() > 1e-5
        block.mixer.D_b.zero_()
        block.mixer.x_proj_b.weight.zero_()
        assert (block(changed) - block(tokens))[0, :-1].abs().max() == 0


def released_state_dict(depth: int, dim: int, patches: int) -> dict[str, Tensor]:
    """Names and shapes of a checkpoint of hustvl/Vim, ``bimambav2 ... with_midclstok_div2``, classifier included."""
    inner, rank = 2 * dim, math.ceil(dim / 16)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, patches + 1, dim),
        "patch_embed.proj.weight": (dim, 3, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
        "norm_f.weight": (dim,),
    }
    for i in range(depth):
        shapes[f"layers.{i}.norm.weight"] = (dim,)
        mixer = f"layers.{i}.mixer"
        shapes |= {f"{mixer}.in_proj.weight": (2 * inner, dim), f"{mixer}.out_proj.weight": (dim, inner)}
        for way in ("", "_b"):
            shapes |= {
                f"{mixer}.conv1d{way}.weight": (inner, 1, 4),
                f"{mixer}.conv1d{way}.bias": (inner,),
                f"{mixer}.x_proj{way}.weight": (rank + 32, inner),
                f"{mixer}.dt_proj{way}.weight": (inner, rank),
                f"{mixer}.dt_proj{way}.bias": (inner,),
                f"{mixer}.A{way}_log": (inner, 16),
                f"{mixer}.D{way}": (inner,),
            }
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_released_checkpoint_loads_strictly_without_its_class_token() -> None:
    released = released_state_dict(depth=2, dim=32, patches=12)
    encoder = VisionMambaEncoder((48, 64), patch_size=16, dim=32, depth=2)
    encoder.load_state_dict(dict(released), strict=True)
    assert torch.equal(encoder.layers[1].mixer.A_b_log, released["layers.1.mixer.A_b_log"])
    # the class token sits in the middle: row 6 of 13
    assert torch.equal(encoder.pos_embed[0], released["pos_embed"][0][[*range(6), *range(7, 13)]])
    with pytest.raises(RuntimeError, match="pos_embed"):
        VisionMambaEncoder((64, 64), patch_size=16, dim=32, depth=2).load_state_dict(dict(released))


def test_encoder_keeps_patches_in_place_and_survives_a_round_trip() -> None:
    # with the positions at zero and no block left, a cell depends on its own patch alone
    encoder = randomise(VisionMambaEncoder((64, 96), depth=0, dim=16))
    images = torch.randn(1, 3, 64, 96)
    changed = images.clone()
    changed[..., 32:64, 64:96] += 1.0
    moved = (encoder(changed) - encoder(images)).abs().amax(1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[1, 2]]

    deep = randomise(VisionMambaEncoder((64, 96), depth=2, dim=16))
    assert ((deep(changed) - deep(images)).abs().amax(1) > 1e-6).all(), "blocks must spread a change to all cells"
    copy = VisionMambaEncoder((64, 96), depth=2, dim=16)
    copy.load_state_dict(deep.state_dict())
    assert torch.equal(copy(images), deep(images))


def test_bf16_autocast_stays_near_float32_and_trains() -> None:
    torch.manual_seed(0)
    encoder = VisionMambaEncoder((64, 64), patch_size=16, dim=48, depth=2)
    images = torch.randn(4, 3, 64, 64)
    exact = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(images)
    assert features.dtype == torch.float32
    assert (features - exact).abs().mean() < 0.01 * exact.abs().mean()
    features.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_initial_state_is_that_of_mamba() -> None:
    encoder = VisionMambaEncoder((64, 64), patch_size=16, dim=64, depth=4)
    for layer in encoder.layers:
        mixer = layer.mixer
        for log_rates, skip, dt_proj in (
            (mixer.A_log, mixer.D, mixer.dt_proj),
            (mixer.A_b_log, mixer.D_b, mixer.dt_proj_b),
        ):
            torch.testing.assert_close(log_rates.exp(), torch.arange(1.0, 17.0).expand(128, 16))
            assert torch.equal(skip, torch.ones(128))
            steps = nn.functional.softplus(dt_proj.bias)
            assert 0.9e-3 < steps.min() < 3e-3
            assert 0.03 < steps.max() < 0.101
        assert mixer.out_proj.weight.abs().max() <= 128**-0.5 / 2 + 1e-6


@pytest.mark.parametrize("encoder_class", [VisionMambaEncoder, CnnEncoder])
def test_wrong_image_sizes_name_the_cure(encoder_class: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="250x256 is not a multiple of the patch size 32; use 256x256"):
        encoder_class((250, 256))
    with pytest.raises(ValueError, match="built for images of 64x64 pixels and got 64x32; resize"):
        encoder_class((64, 64), dim=16)(torch.zeros(1, 3, 64, 32))


def test_encoders_of_table_5_are_interchangeable_and_of_one_size() -> None:
    encoders = VisionMambaEncoder((64, 96)), CnnEncoder((64, 96))
    images = torch.randn(2, 3, 64, 96)
    assert encoders[0](images).shape == encoders[1](images).shape
    vim, cnn = (sum(p.numel() for p in encoder.parameters()) for encoder in encoders)
    assert abs(cnn / vim - 1) < 0.05


def test_onnx_export_keeps_one_scan_a_block_and_any_batch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoder = randomise(VisionMambaEncoder((32, 32), patch_size=8, dim=16, depth=1)).eval()
    path = tmp_path / "encoder.onnx"
    torch.onnx.export(
        encoder,
        (torch.randn(2, 3, 32, 32),),
        path,
        dynamo=True,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Scan") == 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            expected = encoder(images).numpy()
        (result,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(result, expected, atol=1e-5)
