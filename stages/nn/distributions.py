"""Distributions over latents, in the terms of torch.distributions.

`DiagonalGaussian` carries log-variance, because that is what networks emit and what is stored.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Nats

__all__ = ["LATENT_LOG_VARIANCE_RANGE", "DiagonalGaussian"]

# exp(-30) is far below any scale a float32 latent resolves and exp(20) far above any useful one:
# inside, exp() and its gradient stay finite (the range of latent-diffusion's posteriors).
LATENT_LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class DiagonalGaussian:
    """q(z given x) = N(mean, diag exp(log_variance)) over a latent grid."""

    mean: Float[Tensor, "batch channels grid_height grid_width"]
    log_variance: Float[Tensor, "batch channels grid_height grid_width"]

    @property
    def std(self) -> Float[Tensor, "batch channels grid_height grid_width"]:
        """Standard deviation."""
        return torch.exp(0.5 * self.log_variance)

    def rsample(
        self, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch channels grid_height grid_width"]:
        """z = mean + std * eps, eps ~ N(0, I); differentiable (Kingma & Welling 2013, Eq. 10)."""
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + self.std * noise

    def log_prob(self, latents: Float[Tensor, "batch channels grid_height grid_width"]) -> Nats:
        """log q(latents) in nats per image."""
        squares = (latents - self.mean).square() * torch.exp(-self.log_variance)
        return -0.5 * (squares + self.log_variance + math.log(2 * math.pi)).sum(dim=(1, 2, 3))

    def kl_per_number(
        self, prior_std: float = 1.0
    ) -> Float[Tensor, "batch channels grid_height grid_width"]:
        """KL(q || N(0, prior_std^2)) of every latent number, in nats.

        1/2 (mu^2/s^2 + sigma^2/s^2 - log(sigma^2/s^2) - 1); zero iff mu = 0 and sigma = s.
        """
        log_ratio = self.log_variance - 2 * math.log(prior_std)
        return 0.5 * (self.mean.square() / prior_std**2 + torch.exp(log_ratio) - log_ratio - 1.0)
