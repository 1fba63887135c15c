"""A step of a training, alike for all contenders."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.side_by_side.ceiling import fastest_precision
from stages.core.devices import autocast
from stages.training.pieces import compiled

__all__ = ["STEPS_IN_A_ROW", "compiled_forward", "training_step"]

STEPS_IN_A_ROW = 4
"""Of every contender in each turn."""


def compiled_forward(module: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The module as the training loop compiles it."""
    forward = compiled(module, 1, device)

    def call(*inputs: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return forward(*inputs, **named)

    return call


def training_step(
    module: nn.Module, loss: Callable[[], Tensor], device: torch.device
) -> Callable[[], object]:
    """One step with the fused AdamW that the training loop uses; the module is on the device."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    module.train()

    def run() -> None:
        with autocast(fastest_precision(device), device):
            value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return run
