"""The KL is held at a capacity that rises.

    cost = gamma |mean over the batch of KL - C(t)|,    C(t) = capacity * min(1, t / steps)

Burgess et al. 2018 (arXiv:1804.03599), Eq. 8. Latents are given room bit by bit: the factors that
save most distortion come first and get a dimension each, while the pressure gamma stays high.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.nn.schedules import Step, ramp
from stages.objectives.base import DimensionKL, Objective, ObjectiveOptions

__all__ = ["Capacity", "CapacityOptions"]


class CapacityOptions(ObjectiveOptions):
    """Pressure and room."""

    kind: Literal["capacity"]
    gamma: float = Field(gt=0)
    """Weight of the distance between KL and capacity."""
    capacity: float = Field(ge=0)
    """Nats per image that the KL is led to."""
    capacity_steps: int = Field(ge=0)
    """Steps over which the capacity rises from 0; 0: it is there from the first."""


class Capacity(Objective):
    """A KL led along a line."""

    def __init__(self, options: CapacityOptions) -> None:
        self.options = options

    def cost(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, ""]:
        """gamma times the distance to the capacity of the step, nats per image."""
        # Latents that cost nothing (codes) have no capacity to reach.
        if not kl.shape[1]:
            return kl.mean(dim=0).sum()
        return self.options.gamma * self._excess(kl, step).abs()

    def price(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, " latent_dims"]:
        """gamma above the capacity of the step, -gamma below it."""
        return self.options.gamma * self._excess(kl, step).sign() * torch.ones_like(kl[0])

    def _excess(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, ""]:
        options = self.options
        room = options.capacity * ramp(step, options.capacity_steps, "linear").to(kl.device)
        return kl.mean(dim=0).sum() - room
