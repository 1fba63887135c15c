"""The variational autoencoder's bottleneck: a Gaussian posterior, charged its KL to N(0, I).

    q(z given x) = N(mu, diag sigma^2),    z = mu + sigma eps,    eps ~ N(0, I)
    rate = kl_weight * 1/2 sum (mu^2 + sigma^2 - log sigma^2 - 1)

Kingma & Welling 2013, Eq. 10. kl_weight 1 is the ELBO; above 1, beta-VAE (Higgins et al. 2017);
about 1e-6 on a map, the latents of latent diffusion (Rombach et al. 2022).
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Features, FeatureShape
from stages.nn.distributions import LATENT_LOG_VARIANCE_RANGE, DiagonalGaussian
from stages.nn.projections import Layout, features_from_latents, grid_shape, latents_from_features

__all__ = ["Gaussian", "GaussianOptions"]


class GaussianOptions(BottleneckOptions):
    """Parameters of the Gaussian posterior."""

    latents = "continuous"

    kind: Literal["gaussian"]
    layout: Layout
    """`spatial`: a posterior per cell of the features' grid; `vector`: one cell."""
    channels: int = Field(ge=1)
    """Numbers per cell."""
    kl_weight: float = Field(ge=0)
    """Multiplies the summed KL; 1: the evidence lower bound."""

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

    def forward(self, features: Features, generator: torch.Generator | None = None) -> Bottlenecked:
        """Draw z from the posterior and charge its KL."""
        posterior = self.encode(features)
        kl = posterior.kl_per_number().sum(dim=(1, 2, 3))
        return Bottlenecked(
            features=self.decode(posterior.rsample(generator)),
            rate=self.options.kl_weight * kl,
            auxiliary=kl.new_zeros(()),
            posterior=posterior,
            statistics={"kl_nats": kl.detach().mean()},
        )

    def encode(self, features: Features) -> DiagonalGaussian:
        """q(z given x), in float32."""
        mean, log_variance = self.project_in(features).float().chunk(2, dim=1)
        return DiagonalGaussian(mean, log_variance.clamp(*LATENT_LOG_VARIANCE_RANGE))

    def decode(self, latents: Tensor) -> Features:
        """Features of these latents."""
        return self.project_out(latents)

    @staticmethod
    def kl_per_dimension(
        posterior: DiagonalGaussian,
    ) -> Float[Tensor, "channels grid_height grid_width"]:
        """KL of each latent dimension in nats, averaged over images; collapsed below 0.1."""
        return posterior.kl_per_number().mean(dim=0)
