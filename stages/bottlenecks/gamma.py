"""A Gamma posterior, charged its KL to Gamma(a_0, rate_0): latents that count or weigh, never < 0.

    q(z given x) = Gamma(a, rate),    mean m = a / rate,    variance m^2 / a
    KL = (a - a_0) digamma(a) - log Gamma(a) + log Gamma(a_0) + a_0 log(rate / rate_0)
         + m (rate_0 - rate) for every latent number

Draws are differentiable in a by implicit reparameterization (Figurnov et al. 2018,
arXiv:1805.08498, who train VAEs with such latents; stages/nn/posteriors.py).

The encoder gives log m and log a, each kept to a range by a smooth bound, and a draw says something
about x by how far m is from that of the prior and how exact a makes it. Where it gives zeros, q is
the prior.

Differs: the decoder sees (z - m_0) / s_0, with mean and standard deviation of the prior, so that it
is fed numbers of unit variance whatever a_0 and rate_0 are.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Features, FeatureShape
from stages.nn.posteriors import GAMMA_CONCENTRATIONS, FactorizedPosterior, bounded, family_of
from stages.nn.projections import Layout, features_from_latents, grid_shape, latents_from_features
from stages.nn.schedules import Step

__all__ = ["Gamma", "GammaOptions"]

# Means from 1/1100 to 1100 times the prior's: on disk, float16 holds them and their squares.
_LOG_MEANS = 7.0


class GammaOptions(BottleneckOptions):
    """Parameters of the Gamma posterior."""

    latents = "continuous"

    kind: Literal["gamma"]
    layout: Layout
    """`spatial`: a posterior per cell of the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""
    prior_concentration: float = Field(ge=0.5, le=500)
    """a_0 of the prior: 1 is the exponential distribution, larger ones approach a Gaussian."""
    prior_rate: float = Field(ge=1e-3, le=1e3)
    """rate_0 of the prior, whose mean is a_0 / rate_0: the unit of the latents."""
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
            posterior="gamma",
            reference=(self.prior_concentration, self.prior_rate),
        )


class Gamma(Bottleneck):
    """Log-mean and log-concentration by a linear projection, a draw, and a projection back."""

    def __init__(self, options: GammaOptions, features: FeatureShape) -> None:
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
        options = self.options
        raw_mean, raw_concentration = self.project_in(features).float().chunk(2, dim=1)
        centre = math.log(options.prior_concentration / options.prior_rate)
        log_mean = bounded(raw_mean, centre - _LOG_MEANS, centre + _LOG_MEANS, centre)
        log_concentration = bounded(
            raw_concentration,
            *map(math.log, GAMMA_CONCENTRATIONS),
            start=math.log(options.prior_concentration),
        )
        log_variance = 2 * log_mean - log_concentration
        return FactorizedPosterior(log_mean.exp(), log_variance, self.family)

    def decode(self, latents: Tensor) -> Features:
        """Features of these latents, which are brought to mean 0 and unit variance first."""
        return self.project_out(self.family.standardised(latents))
