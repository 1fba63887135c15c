"""No bottleneck but the number of latents: the plain autoencoder.

    z = W f(x) + b,    rate = 0

The baseline that shows what a prior is for: nothing shapes the distribution of z, so decoding
z ~ N(0, I) gives garbage, and a prior fitted afterwards repairs it (Ghosh et al. 2020).
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

__all__ = ["Identity", "IdentityOptions"]


class IdentityOptions(BottleneckOptions):
    """Parameters of the plain autoencoder's latents."""

    latents = "continuous"

    kind: Literal["identity"]
    layout: Layout
    """`spatial`: latents keep the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """Points: continuous latents without variance."""
        rows, columns = grid_shape(self.layout, features)
        return LatentSpec("continuous", rows, columns, channels=self.channels, deterministic=True)


class Identity(Bottleneck):
    """A linear projection in and another out."""

    def __init__(self, options: IdentityOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features(options.layout, features, options.channels)
        self.project_out = features_from_latents(options.layout, features, options.channels)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Project in and out; nothing is drawn and nothing is charged."""
        posterior = self.encode(features)
        return Bottlenecked(
            features=self.decode(posterior.mean),
            kl=None,
            auxiliary=posterior.mean.new_zeros(()),
            posterior=posterior,
        )

    def encode(self, features: Features) -> DiagonalGaussian:
        """The points (spec.deterministic), with the least log-variance there is."""
        mean = self.project_in(features).float()
        return DiagonalGaussian(mean, torch.full_like(mean, LATENT_LOG_VARIANCE_RANGE[0]))

    def decode(self, latents: Tensor) -> Features:
        """Features of these points."""
        return self.project_out(latents)
