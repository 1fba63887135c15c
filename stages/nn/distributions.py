"""Distributions over latents, in the terms of torch.distributions.

A posterior is told by the mean and the log-variance of every latent number: that is what is stored
of it. `DiagonalGaussian` carries them because they are also what networks emit.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Nats

__all__ = ["LATENT_LOG_VARIANCE_RANGE", "DiagonalGaussian", "LatentNumbers", "Posterior"]

LatentNumbers = Float[Tensor, "batch channels grid_height grid_width"]

# exp(-30) is far below any scale a float32 latent resolves and exp(20) far above any useful one:
# inside, exp() and its gradient stay finite (the range of latent-diffusion's posteriors).
LATENT_LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class Posterior(ABC):
    """q(z given x) over a latent grid, independent in every latent number."""

    mean: LatentNumbers
    log_variance: LatentNumbers

    @abstractmethod
    def rsample(self, generator: torch.Generator | None = None) -> LatentNumbers:
        """A draw through which gradients reach the parameters."""

    @abstractmethod
    def log_prob(self, latents: LatentNumbers) -> Nats:
        """log q(latents) in nats per image."""

    @abstractmethod
    def standard_log_prob(self, latents: LatentNumbers) -> Nats:
        """Log-density of the latents under the family's standard prior, in nats per image."""

    @abstractmethod
    def kl_per_number(self) -> LatentNumbers:
        """KL from q to the family's standard prior, of every latent number, in nats."""


@dataclass(frozen=True)
class DiagonalGaussian(Posterior):
    """q(z given x) = N(mean, diag exp(log_variance)); the standard prior is N(0, I)."""

    @property
    def std(self) -> LatentNumbers:
        """Standard deviation."""
        return torch.exp(0.5 * self.log_variance)

    def rsample(self, generator: torch.Generator | None = None) -> LatentNumbers:
        """z = mean + std * eps, eps ~ N(0, I); differentiable (Kingma & Welling 2013, Eq. 10)."""
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + self.std * noise

    def log_prob(self, latents: LatentNumbers) -> Nats:
        """log q(latents) in nats per image."""
        squares = (latents - self.mean).square() * torch.exp(-self.log_variance)
        return -0.5 * (squares + self.log_variance + math.log(2 * math.pi)).sum(dim=(1, 2, 3))

    def standard_log_prob(self, latents: LatentNumbers) -> Nats:
        """log N(latents; 0, I) in nats per image."""
        return -0.5 * (latents.square() + math.log(2 * math.pi)).sum(dim=(1, 2, 3))

    def kl_per_number(self, prior_std: float = 1.0) -> LatentNumbers:
        """KL(q || N(0, prior_std^2)) of every latent number, in nats.

        1/2 (mu^2/s^2 + sigma^2/s^2 - log(sigma^2/s^2) - 1); zero iff mu = 0 and sigma = s.
        """
        log_ratio = self.log_variance - 2 * math.log(prior_std)
        return 0.5 * (self.mean.square() / prior_std**2 + torch.exp(log_ratio) - log_ratio - 1.0)
