"""A Beta posterior, charged its KL to Beta(a_0, b_0): latents between 0 and 1.

    q(z given x) = Beta(a, b),    mean a / (a + b),    variance mean (1 - mean) / (a + b + 1)
    KL = log B(a_0, b_0) - log B(a, b) + (a - a_0) digamma(a) + (b - b_0) digamma(b)
         + (a_0 + b_0 - a - b) digamma(a + b) for every latent number

with B the beta function. a_0 = b_0 = 1 is the uniform prior: every number in (0, 1) is as good as
any other, and no corner of latent space is empty of it. Draws are shares of two gamma draws, whose
derivative is implicit (Figurnov et al. 2018, arXiv:1805.08498; stages/nn/posteriors.py).

The encoder gives log a and log b, each kept to a range by a smooth bound; where it gives zeros, q
is the prior. The decoder sees (z - m_0) / s_0, with mean and standard deviation of the prior.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Features, FeatureShape
from stages.nn.posteriors import BETA_CONCENTRATIONS, FactorizedPosterior, bounded, family_of
from stages.nn.projections import Layout, features_from_latents, grid_shape, latents_from_features
from stages.nn.schedules import Step

__all__ = ["Beta", "BetaOptions"]

Concentration = Annotated[float, Field(ge=0.75, le=500)]


class BetaOptions(BottleneckOptions):
    """Parameters of the Beta posterior."""

    latents = "continuous"

    kind: Literal["beta"]
    layout: Layout
    """`spatial`: a posterior per cell of the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""
    prior_concentrations: tuple[Concentration, Concentration]
    """a_0 and b_0 of the prior, pulling towards 1 and towards 0; [1, 1]: uniform."""
    kl_draws: int = Field(ge=0)
    """Draws of a Monte Carlo estimate of the KL in training; 0: its closed form."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """Continuous latents with a mean and a log-variance each."""
        rows, columns = grid_shape(self.layout, features)
        return LatentSpec(
            "continuous",
            rows,
            columns,
            channels=self.channels,
            posterior="beta",
            reference=self.prior_concentrations,
        )


class Beta(Bottleneck):
    """Two log-concentrations by a linear projection, a draw, and a projection back."""

    def __init__(self, options: BetaOptions, features: FeatureShape) -> None:
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
        raw = self.project_in(features).float().chunk(2, dim=1)
        low, high = map(math.log, BETA_CONCENTRATIONS)
        log_one, log_zero = (
            bounded(numbers, low, high, math.log(start))
            for numbers, start in zip(raw, self.options.prior_concentrations, strict=True)
        )
        total = log_one.exp() + log_zero.exp()
        log_variance = log_one + log_zero - 2 * total.log() - torch.log1p(total)
        return FactorizedPosterior(torch.sigmoid(log_one - log_zero), log_variance, self.family)

    def decode(self, latents: Tensor) -> Features:
        """Features of these latents, which are brought to mean 0 and unit variance first."""
        return self.project_out(self.family.standardised(latents))
