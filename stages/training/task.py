"""What the training loop is asked to train.

The loop knows steps, optimiser, EMA, checkpoints and validation; a task knows data and loss.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Task", "Validation"]


@dataclass(frozen=True)
class Validation:
    """The judgement of one validation pass."""

    criterion: float
    """What early stopping and the choice of the best weights look at; lower is better."""
    figures: dict[str, float]
    """For the curves."""


class Task(ABC):
    """A model, its data, its loss and its validation.

    Attributes:
        module: What is trained; its `state_dict` is what checkpoints keep.
        num_examples: Rows in the training split.
    """

    module: nn.Module
    num_examples: int

    @abstractmethod
    def batch(self, rows: np.ndarray, device: torch.device) -> Any:
        """Read rows of the training split, straight from the memory-mapped arrays."""

    @abstractmethod
    def loss(
        self, module: nn.Module, batch: Any, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise (scalar) and what to plot beside it.

        Args:
            module: `self.module`, possibly compiled.
            batch: What `batch` gave.
            step: Steps done so far, for schedules.
            generator: The stream of this step; every draw comes from it or from torch's global
                generator, which points at the same step.
        """

    @abstractmethod
    def validate(self, module: nn.Module, device: torch.device, step: int) -> Validation:
        """Judge the (EMA) module on the validation split after `step` steps; deterministic."""

    def start(self, device: torch.device, generator: torch.Generator) -> None:
        """Called once before step 0 (k-means start of a codebook); default: no-op."""
        return

    def after_step(self, generator: torch.Generator) -> dict[str, float]:
        """Called after each optimiser step; returns figures when it has any. Default: none."""
        return {}

    def state(self) -> dict[str, Any]:
        """What must survive a kill beside the module (running counts); default: nothing.

        Tensors, numbers, strings, lists, and dicts of them.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave; default: nothing."""
        return
