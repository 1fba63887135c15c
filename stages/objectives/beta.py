"""The evidence lower bound with a weight on the KL, a ramp up to it, and a floor below it.

    cost = w(t) sum over dimensions d of max(mean over the batch of KL_d, free_bits)
    w(t) = kl_weight * ramp(t)

kl_weight 1 without a floor is the evidence lower bound (Kingma & Welling 2013, Eq. 3); above 1,
beta-VAE (Higgins et al. 2017, Eq. 4): dimensions are used sparingly, and on data with independent
factors tend to hold one each; about 1e-6 on a map, latent diffusion's autoencoders (Rombach et al.
2022).

Two remedies against collapsed posteriors. The ramp lets the decoder learn to use the latents
before they cost anything (linear: Bowman et al. 2016; cyclical: Fu et al. 2019). Free bits (Kingma
et al. 2016, arXiv:1606.04934, Appendix C.8) give every dimension `free_bits` nats: below them
there is no gradient, so nothing is gained by emptying it.

Differs: the floor stands under every dimension, not under groups of them.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from stages.nn.schedules import Ramp, Step, ramp
from stages.objectives.base import DimensionKL, Objective, ObjectiveOptions

__all__ = ["Beta", "BetaOptions"]


class BetaOptions(ObjectiveOptions):
    """Weight, floor and ramp."""

    kind: Literal["beta"]
    kl_weight: float = Field(ge=0)
    """Multiplies the summed KL; 1: the evidence lower bound."""
    free_bits: float = Field(ge=0, le=1000)
    """Nats per latent dimension that are charged in any case, and so are free to use; 0: none."""
    annealing: Literal["none"] | Ramp
    """How the weight rises from 0 at the first step."""
    annealing_steps: int = Field(ge=0)
    """Steps until the weight is `kl_weight`; 0 with annealing none."""
    cycles: int = Field(ge=1)
    """Of cyclical annealing; 1 otherwise."""

    @model_validator(mode="after")
    def _ramp_has_a_length(self) -> "BetaOptions":
        if (self.annealing == "none") != (self.annealing_steps == 0):
            raise ValueError(
                "annealing_steps must be 0 with annealing none and above 0 otherwise; got "
                f"{self.annealing_steps} with {self.annealing}"
            )
        if self.annealing != "cyclical" and self.cycles != 1:
            raise ValueError(f"cycles must be 1 unless annealing is cyclical; got {self.cycles}")
        return self


class Beta(Objective):
    """A weighted KL with annealing and free bits."""

    def __init__(self, options: BetaOptions) -> None:
        self.options = options

    def cost(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, ""]:
        """Weighted nats per image."""
        nats = kl.mean(dim=0).clamp(min=self.options.free_bits).sum()
        return self._weight(step, nats.device) * nats

    def price(self, kl: DimensionKL, step: Step | None) -> Float[Tensor, " latent_dims"]:
        """The weight; 0 for a dimension below its free bits."""
        charged = kl.mean(dim=0) >= self.options.free_bits
        return charged * self._weight(step, kl.device)

    def _weight(self, step: Step | None, device: torch.device) -> Tensor | float:
        options = self.options
        if options.annealing == "none":
            return options.kl_weight
        rise = ramp(step, options.annealing_steps, options.annealing, options.cycles)
        return options.kl_weight * rise.to(device)
