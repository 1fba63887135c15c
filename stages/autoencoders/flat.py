"""One encoder, one bottleneck, one decoder: the (variational, vector-quantized) autoencoder.

    loss = mean over images of (distortion + rate) / D + auxiliary
    distortion = -log p(x given z),    rate: what the bottleneck charges for z, both in nats

With a Gaussian bottleneck of kl_weight 1 the first term is the negative evidence lower bound per
dim (Kingma & Welling 2013, Eq. 3). Dividing by D, the number of intensities, makes learning rates
and weights of auxiliary terms carry over between image sizes.
"""

from typing import Literal

import torch
from torch import Tensor

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Reconstructed
from stages.backbones.base import Backbone
from stages.bottlenecks.base import Bottleneck, LatentSpec
from stages.core.shapes import Codes, Images
from stages.likelihoods.base import Likelihood, Parameters
from stages.nn.distributions import DiagonalGaussian

__all__ = ["Flat", "FlatOptions"]


class FlatOptions(AutoencoderOptions):
    """Parameters of the flat autoencoder: none of its own."""

    kind: Literal["flat"]


class Flat(Autoencoder):
    """Backbone, bottleneck and likelihood in a row."""

    def __init__(
        self,
        options: FlatOptions,
        backbone: Backbone,
        bottleneck: Bottleneck,
        likelihood: Likelihood,
    ) -> None:
        super().__init__(options, backbone, bottleneck, likelihood)
        self.backbone = backbone
        self.bottleneck = bottleneck
        self.likelihood = likelihood

    @property
    def spec(self) -> LatentSpec:
        """What the bottleneck stores."""
        return self.bottleneck.spec

    def forward(self, images: Images, generator: torch.Generator | None = None) -> Reconstructed:
        """One pass with losses; targets and latents are drawn from `generator`."""
        target = self.likelihood.target(images, generator)
        bottlenecked = self.bottleneck(self.backbone.encoder(target), generator)
        parameters = self.backbone.decoder(bottlenecked.features)
        distortion = -self.likelihood.log_prob(target, parameters)
        nats_per_dim = (distortion + bottlenecked.rate).mean() / images[0].numel()
        return Reconstructed(
            loss=nats_per_dim + bottlenecked.auxiliary,
            distortion=distortion,
            bottlenecked=bottlenecked,
            reconstructions=self.likelihood.mean(parameters),
        )

    def encode(self, images: Images) -> Codes | DiagonalGaussian:
        """Codes, or the posterior; deterministic."""
        target = self.likelihood.target(images, None)
        return self.bottleneck.encode(self.backbone.encoder(target))

    def decode(self, latents: Tensor) -> Parameters:
        """Parameters of p(x given latents)."""
        return self.backbone.decoder(self.bottleneck.decode(latents))
