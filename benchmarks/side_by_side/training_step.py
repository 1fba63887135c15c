"""A step of a training, alike for all contenders."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.side_by_side.ceiling import fastest_precision
from stages.core.devices import autocast

__all__ = ["STEPS_IN_A_ROW", "training_step"]

STEPS_IN_A_ROW = 4
"""Of every contender in each turn."""


def training_step(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """One step with the fused AdamW that the training loop uses."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    module.train()

    def run() -> None:
        with autocast(fastest_precision(), torch.device("cpu")):
            value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return run
