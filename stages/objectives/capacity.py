"""The KL is held at a capacity that rises.

    cost = gamma |mean over the batch of KL - C(t)|,    C(t) = capacity * min(1, t / steps)

Burgess et al. 2018 (arXiv:1804.03599), Eq. 8. Latents are given room bit by bit: the factors that
save most distortion come first and get a dimension each, while the pressure gamma stays high.
"""

from typing import Literal

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
        options = self.options
        nats = kl.mean(dim=0).sum()
        room = options.capacity * ramp(step, options.capacity_steps, "linear").to(nats.device)
        # Latents that cost nothing (codes) have no capacity to reach.
        return options.gamma * (nats - room).abs() if kl.shape[1] else nats
