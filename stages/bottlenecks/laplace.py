"""A Laplace posterior, charged its KL to Laplace(0, 1): sharper peaks, heavier tails.

    q(z given x) = Laplace(m, b),    z = m - b sign(u) log(1 - |u|),    u ~ Uniform(-1, 1)
    KL = |m| + b exp(-|m| / b) - log b - 1 for every latent number

Kingma & Welling 2013, section 2.4, name the Laplace among the families with such draws; the KL is
that of torch.distributions (Gil 2011). Means beyond b cost in proportion to their size, not to
their square: a latent may say a lot about a few images without costing too much on them.

The encoder gives m and log b; where it gives zeros, q is the prior. Stored are the mean m and the
log-variance log 2 + 2 log b.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Features, FeatureShape
from stages.nn.distributions import LATENT_LOG_VARIANCE_RANGE
from stages.nn.posteriors import FactorizedPosterior, family_of
from stages.nn.projections import Layout, features_from_latents, grid_shape, latents_from_features
from stages.nn.schedules import Step

__all__ = ["Laplace", "LaplaceOptions"]


class LaplaceOptions(BottleneckOptions):
    """Parameters of the Laplace posterior."""

    latents = "continuous"

    kind: Literal["laplace"]
    layout: Layout
    """`spatial`: a posterior per cell of the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""
    kl_draws: int = Field(ge=0)
    """Draws of a Monte Carlo estimate of the KL in training; 0: its closed form."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """Continuous latents with a mean and a log-variance each."""
        rows, columns = grid_shape(self.layout, features)
        return LatentSpec("continuous", rows, columns, channels=self.channels, posterior="laplace")


class Laplace(Bottleneck):
    """Mean and log-scale by a linear projection, a draw, and a projection back."""

    def __init__(self, options: LaplaceOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.family = family_of(self.spec.posterior, self.spec.reference)
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
            kl=posterior.kl_per_number(self.options.kl_draws, generator),
            auxiliary=posterior.mean.new_zeros(()),
            posterior=posterior,
        )

    def encode(self, features: Features) -> FactorizedPosterior:
        """q(z given x), in float32."""
        mean, log_scale = self.project_in(features).float().chunk(2, dim=1)
        log_variance = (math.log(2) + 2 * log_scale).clamp(*LATENT_LOG_VARIANCE_RANGE)
        return FactorizedPosterior(mean, log_variance, self.family)

    def decode(self, latents: Tensor) -> Features:
        """Features of these latents, which are brought to unit variance first."""
        return self.project_out(self.family.standardised(latents))
