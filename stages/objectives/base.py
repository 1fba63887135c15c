"""The family of objectives: how the KL of the latents is weighed against the distortion.

The loss of a first stage is distortion + cost(KL), in nats per image. What bounds the likelihood
is the cost with weight 1; every other one trades rate for distortion, or keeps latents alive
while the decoder learns to use them.
"""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from stages.core.sections import MemberOptions
from stages.nn.schedules import Step

__all__ = ["DimensionKL", "Objective", "ObjectiveOptions"]

DimensionKL = Float[Tensor, "batch latent_dims"]
"""KL of each latent dimension of each image, in nats."""


class ObjectiveOptions(MemberOptions):
    """Base of the objectives' options."""


class Objective(ABC):
    """A price of rate."""

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def cost(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, ""]:
        """What a batch of latents costs.

        Args:
            kl: Unweighted.
            step: Where schedules stand; None: as after the last step.

        Returns:
            Nats per image, the mean over the batch, or over the piece of it that is seen at once
            (docs/scale.md); 0 for no latent dimensions.
        """

    @abstractmethod
    def price(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, " latent_dims"]:
        """What one more nat in each latent dimension would cost, where the batch stands now.

        The slope of `cost`, for estimators whose draws move the KL of what is drawn after them.

        Args:
            kl: Unweighted.
            step: Where schedules stand; None: as after the last step.
        """
