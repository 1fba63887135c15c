"""One encoder, one bottleneck, one decoder: the (variational, vector-quantized) autoencoder.

    x -> encoder -> features -> bottleneck -> z -> features -> decoder -> p(x given z)

Which autoencoder it is, the bottleneck says: Kingma & Welling 2013 (`gaussian`), van den Oord et
al. 2017 (`vq`), ...
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Parts, Reconstructed
from stages.bottlenecks.base import Bottlenecked, LatentSpec
from stages.core.shapes import Codes, Images, Labels
from stages.likelihoods.base import Parameters
from stages.nn.distributions import Posterior
from stages.nn.schedules import Step
from stages.objectives.base import DimensionKL

__all__ = ["Flat", "FlatOptions"]


class FlatOptions(AutoencoderOptions):
    """Parameters of the flat autoencoder: none of its own."""

    kind: Literal["flat"]


class Flat(Autoencoder):
    """Backbone, bottleneck and likelihood in a row."""

    def __init__(self, options: FlatOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        self.backbone = parts.backbone
        self.bottleneck = parts.make_bottleneck(parts.features)
        self.codebook_parts = self.bottleneck.codebook_parts
        self.likelihood = parts.likelihood
        self.objective = parts.objective
        self.kl_groups = _groups(self.spec)

    @property
    def spec(self) -> LatentSpec:
        """What the bottleneck stores."""
        return self.bottleneck.spec

    def forward(
        self,
        images: Images,
        labels: Labels | None = None,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Reconstructed:
        """One pass with losses; targets and latents are drawn from `generator`."""
        target = self.likelihood.target(images, generator)
        passed = self.bottleneck(self.backbone.encoder(target), generator, step)
        parameters = self.backbone.decoder(passed.features)
        distortion = -self.likelihood.log_prob(target, parameters)
        kl = _per_dimension(passed, len(images))
        cost = self.objective.cost(kl, step)
        surrogate = self.bottleneck.surrogate(passed, distortion + kl.sum(dim=1))
        nats = distortion.mean() + cost + surrogate
        return Reconstructed(
            loss=nats / images[0].numel() + passed.auxiliary,
            distortion=distortion,
            kl=kl,
            auxiliary=passed.auxiliary,
            reconstructions=self.likelihood.mean(parameters),
            codes=passed.codes,
            statistics=passed.statistics,
        )

    def encode(self, images: Images, labels: Labels | None = None) -> Codes | Posterior:
        """Codes, or the posterior; deterministic."""
        target = self.likelihood.target(images, None)
        return self.bottleneck.encode(self.backbone.encoder(target))

    def decode(self, latents: Tensor, labels: Labels | None = None) -> Parameters:
        """Parameters of p(x given latents)."""
        return self.backbone.decoder(self.bottleneck.decode(latents))

    def log_weights(
        self, images: Images, labels: Labels | None, draws: int, generator: torch.Generator
    ) -> Float[Tensor, "draws batch"]:
        """Weights of draws of the posterior; images are encoded once."""
        if self.spec.kind == "codes" or self.spec.deterministic:
            return super().log_weights(images, labels, draws, generator)
        posterior = self.bottleneck.encode(self.backbone.encoder(images))
        weights = []
        for _ in range(draws):
            latents = posterior.rsample(generator)
            likelihood = self.likelihood.log_prob(images, self.decode(latents))
            ratio = posterior.standard_log_prob(latents) - posterior.log_prob(latents)
            weights.append(likelihood + ratio)
        return torch.stack(weights)

    @torch.no_grad()
    def start_from_data(
        self, images: Images, labels: Labels | None, generator: torch.Generator
    ) -> None:
        """Start the bottleneck from the features of these images."""
        self.bottleneck.start_from_data(self.backbone.encoder(images), generator)

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Let the bottleneck mend itself."""
        self.bottleneck.after_step(generator)


def _per_dimension(passed: Bottlenecked, batch: int) -> DimensionKL:
    if passed.kl is None:
        return passed.features.new_zeros(batch, 0)
    return passed.kl.flatten(1)


def _groups(spec: LatentSpec) -> dict[str, int]:
    """One group per channel of the latent grid; drawn codes are charged as one channel."""
    return {f"channel_{index:03d}": spec.tokens for index in range(max(spec.channels, 1))}
