# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""How closely each tensor of two trainings must agree: by how it came to its value, not by what it is called."""

import re
from collections.abc import Mapping

import torch
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback
from torch import Tensor, nn

# Buffers that are set again after training steps, from what the trained branch makes of normal images. Any other buffer
# that a training changes is an error here until it has its place in this list, and so is a place that nothing needs.
CALIBRATED = re.compile(r"^post_processor\.|\.(quantiles|maximum)$|\.locations\.")


def without_batch_norms(model: AnomalibModule) -> AnomalibModule:
    """Put group norms in place of the trained batch norms, for comparisons of a batch with its parts.

    A batch norm sees the part of a batch that one process or one step has; nothing is wrong if its result differs.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and child.weight.requires_grad:
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    return model


class BeforeTraining(Callback):
    """Keeps the state of the first step, when all that is counted on frozen descriptors is known."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        del trainer, batch, batch_idx
        if not self.state:
            self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def kinds(self, model: torch.nn.Module) -> dict[str, str]:
        """Kind of every tensor of a trained model's state: ``frozen``, ``fitted``, ``calibrated`` or ``trained``."""
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        kinds = {}
        for name, value in model.state_dict().items():
            if name in parameters:
                kinds[name] = "trained" if parameters[name].requires_grad else "frozen"
            elif name in buffers:
                kinds[name] = "calibrated" if CALIBRATED.search(name) else "fitted"
                changed = not torch.equal(value.nan_to_num(), self.state[name].nan_to_num())
                assert changed == (kinds[name] == "calibrated"), f"{name} is {kinds[name]}, yet changed is {changed}"
            else:
                msg = f"{name} is neither a parameter nor a buffer: how closely must it agree?"
                raise AssertionError(msg)
        return kinds


def assert_same_training(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], kinds: Mapping[str, str]) -> None:
    """Compare two trainings that differ by rounding alone.

    =========== =================================== ==============================================================
    kind        what                                has to agree
    =========== =================================== ==============================================================
    frozen      parameters without a gradient       exactly
    fitted      statistics, prototypes, components  up to rounding
    calibrated  quantiles, places, thresholds       up to what the trained weights differ
    trained     parameters with a gradient          in the norm: Adam turns the sign of a gradient near zero into a
                                                    whole step, so single weights may differ
    =========== =================================== ==============================================================

    Args:
        state (Mapping[str, Tensor]): State of one model.
        expected (Mapping[str, Tensor]): State of the other.
        kinds (Mapping[str, str]): Kind of each tensor of both.

    Raises:
        AssertionError: If a tensor differs, or is missing from one of the three.
    """
    assert state.keys() == expected.keys() == kinds.keys()
    tolerances = {"frozen": (0.0, 0.0), "fitted": (1e-4, 1e-5), "calibrated": (2e-2, 2e-2)}
    for name, value in state.items():
        if kinds[name] == "trained":
            difference, norm = (value - expected[name]).norm(), expected[name].norm()
            assert difference <= 0.3 * norm + 1e-6, f"{name} differs by {difference:.3g} of {norm:.3g}"
        else:
            rtol, atol = tolerances[kinds[name]]
            torch.testing.assert_close(
                value, expected[name], rtol=rtol, atol=atol, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )
