"""The variational autoencoder's bottleneck: a Gaussian posterior, charged its KL to N(0, I).

    q(z given x) = N(mu, diag sigma^2),    z = mu + sigma eps,    eps ~ N(0, I)
    KL = 1/2 (mu^2 + sigma^2 - log sigma^2 - 1) for every latent number

Kingma & Welling 2013, Eq. 10. On a map, with a small weight on the KL, these are the latents of
latent diffusion (Rombach et al. 2022).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Features, FeatureShape
from stages.nn.distributions import LATENT_LOG_VARIANCE_RANGE, DiagonalGaussian
from stages.nn.projections import Layout, features_from_latents, grid_shape, latents_from_features
from stages.nn.schedules import Step

__all__ = ["Gaussian", "GaussianOptions"]


class GaussianOptions(BottleneckOptions):
    """Parameters of the Gaussian posterior."""

    latents = "continuous"

    kind: Literal["gaussian"]
    layout: Layout
    """`spatial`: a posterior per cell of the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """Continuous latents with a mean and a log-variance each."""
        rows, columns = grid_shape(self.layout, features)
        return LatentSpec("continuous", rows, columns, channels=self.channels)


class Gaussian(Bottleneck):
    """Mean and log-variance by a linear projection, a draw, and a projection back."""

    def __init__(self, options: GaussianOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features(options.layout, features, 2 * options.channels)
        self.project_out = features_from_latents(options.layout, features, options.channels)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Draw z from the posterior and tell its KL."""
        posterior = self.encode(features)
        return Bottlenecked(
            features=self.decode(posterior.rsample(generator)),
            kl=posterior.kl_per_number(),
            auxiliary=posterior.mean.new_zeros(()),
            posterior=posterior,
        )

    def encode(self, features: Features) -> DiagonalGaussian:
        """q(z given x), in float32."""
        mean, log_variance = self.project_in(features).float().chunk(2, dim=1)
        return DiagonalGaussian(mean, log_variance.clamp(*LATENT_LOG_VARIANCE_RANGE))

    def decode(self, latents: Tensor) -> Features:
        """Features of these latents."""
        return self.project_out(latents)
