"""The variational autoencoder of images given their class, with a prior learned per class.

    q(z given x, c) = N(mu(x, c), sigma(x, c)^2)      p(z given c) = N(m_c, s_c^2)
    log p(x given c) >= E_q log p(x given z, c) - KL(q(z given x, c) to p(z given c))

Sohn et al. 2015, Eq. 4; ACT (Zhao et al. 2023, arXiv:2304.13705) is of this form, with N(0, I) for
p(z given c). A learned vector per class is added to the features behind the
encoder and again to those before the decoder, and residual blocks mix both; m_c and log s_c, a
number each per class and latent number, are linear in a third vector of the class.

What is drawn, charged and stored is not z but e = (z - m_c) / s_c, in whose coordinates p(z given
c) is N(0, I). A KL does not depend on coordinates: with q(e) = N((mu - m_c) / s_c, sigma^2 / s_c^2)

    KL(q(e) to N(0, I)) = 1/2 sum (((mu - m_c)^2 + sigma^2) / s_c^2 - log(sigma^2 / s_c^2) - 1)

is the KL of z. So the prior `standard_normal` is the model's own for every class; `decode` undoes
the coordinates.

Differs: classes for the paper's structured input; nothing is predicted without a draw of z.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Parts, Reconstructed
from stages.bottlenecks.base import BottleneckOptions, LatentSpec
from stages.core.errors import ParamsError
from stages.core.shapes import Features, FeatureShape, Images, Labels
from stages.likelihoods.base import Parameters
from stages.nn.distributions import LATENT_LOG_VARIANCE_RANGE, DiagonalGaussian, LatentNumbers
from stages.nn.embedding import Embedding
from stages.nn.residual import residual_blocks
from stages.nn.schedules import Step

__all__ = ["Conditional", "ConditionalOptions"]


class ConditionalOptions(AutoencoderOptions):
    """How features and class are mixed."""

    kind: Literal["conditional"]
    blocks: int = Field(ge=1)
    """Residual blocks that see features and class together, behind the encoder and again before
    the decoder."""

    def latent_spec(
        self, bottleneck: BottleneckOptions, features: FeatureShape, num_classes: int
    ) -> LatentSpec:
        """The bottleneck's latents, relative to the prior of their class.

        Raises:
            ParamsError: If the data have no classes, or the posterior is not Gaussian.
        """
        if num_classes == 0:
            raise ParamsError(
                "autoencoder.kind: 'conditional' learns images given their class, but the data of "
                "the section dataset have no classes; choose a dataset.kind with classes, or "
                "another autoencoder"
            )
        if bottleneck.kind != "gaussian":
            raise ParamsError(
                "bottleneck.kind: must be gaussian with autoencoder.kind 'conditional', whose "
                f"prior is a Gaussian per class; got {bottleneck.kind!r}"
            )
        return bottleneck.latent_spec(features)


class Conditional(Autoencoder):
    """Encoder, prior and decoder that all know the class.

    Attributes:
        class_prior: Classes to m_c and log s_c of every latent number, all 0 at the start. (A plain
            table would be as general, but a step moves its numbers by the learning rate alone.)
    """

    def __init__(self, options: ConditionalOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        self._spec = options.latent_spec(parts.bottleneck, parts.features, parts.num_classes)
        self.num_classes = parts.num_classes
        self.backbone = parts.backbone
        self.bottleneck = parts.make_bottleneck(parts.features)
        self.likelihood = parts.likelihood
        self.objective = parts.objective
        width = parts.features.width
        self.encoder_class = Embedding(parts.num_classes, width)
        self.encoder_blocks = nn.Sequential(*residual_blocks(width, options.blocks))
        self.decoder_class = Embedding(parts.num_classes, width)
        self.decoder_blocks = nn.Sequential(*residual_blocks(width, options.blocks))
        to_moments = nn.Linear(width, 2 * self._spec.numbers)
        nn.init.zeros_(to_moments.weight)
        nn.init.zeros_(to_moments.bias)
        self.class_prior = nn.Sequential(Embedding(parts.num_classes, width), to_moments)
        self.kl_groups = {
            f"channel_{index:03d}": self._spec.tokens for index in range(self._spec.channels)
        }

    @property
    def spec(self) -> LatentSpec:
        """What the bottleneck stores."""
        return self._spec

    def prior_of(self, labels: Labels) -> tuple[LatentNumbers, LatentNumbers]:
        """Mean m_c and log standard deviation log s_c of p(z given c)."""
        shape = (2, self._spec.channels, self._spec.grid_height, self._spec.grid_width)
        mean, log_std = self.class_prior(labels).float().unflatten(1, shape).unbind(1)
        # Half the range of log-variances: s_c and 1 / s_c stay finite.
        lowest, highest = LATENT_LOG_VARIANCE_RANGE
        return mean, log_std.clamp(lowest / 2, highest / 2)

    def forward(
        self,
        images: Images,
        labels: Labels | None = None,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Reconstructed:
        """One pass with losses; targets and latents are drawn from `generator`."""
        target = self.likelihood.target(images, generator)
        posterior = self._posterior(target, labels)
        parameters = self.decode(posterior.rsample(generator), labels)
        distortion = -self.likelihood.log_prob(target, parameters)
        kl = posterior.kl_per_number().flatten(1)
        nats = distortion.mean() + self.objective.cost(kl, step)
        return Reconstructed(
            loss=nats / images[0].numel(),
            distortion=distortion,
            kl=kl,
            auxiliary=nats.new_zeros(()),
            reconstructions=self.likelihood.mean(parameters),
            statistics={"class_prior_spread": self._spread_of_priors()},
        )

    def encode(self, images: Images, labels: Labels | None = None) -> DiagonalGaussian:
        """q(e given x, c), relative to the prior of the class."""
        return self._posterior(self.likelihood.target(images, None), labels)

    def decode(self, latents: LatentNumbers, labels: Labels | None = None) -> Parameters:
        """Parameters of p(x given z, c) at z = m_c + s_c e."""
        labels = _given(labels)
        mean, log_std = self.prior_of(labels)
        features = self.bottleneck.decode(mean + torch.exp(log_std) * latents)
        features = self.decoder_blocks(features + _everywhere(self.decoder_class(labels)))
        return self.backbone.decoder(features)

    def log_weights(
        self, images: Images, labels: Labels | None, draws: int, generator: torch.Generator
    ) -> Float[Tensor, "draws batch"]:
        """Weights of draws of q; those of e are those of z: the Jacobian s_c cancels."""
        posterior = self._posterior(images, labels)
        weights = []
        for _ in range(draws):
            latents = posterior.rsample(generator)
            likelihood = self.likelihood.log_prob(images, self.decode(latents, labels))
            ratio = posterior.standard_log_prob(latents) - posterior.log_prob(latents)
            weights.append(likelihood + ratio)
        return torch.stack(weights)

    def _posterior(self, target: Images, labels: Labels | None) -> DiagonalGaussian:
        labels = _given(labels)
        features = self.backbone.encoder(target) + _everywhere(self.encoder_class(labels))
        own = self.bottleneck.encode(self.encoder_blocks(features))
        assert isinstance(own, DiagonalGaussian)
        mean, log_std = self.prior_of(labels)
        return DiagonalGaussian(
            (own.mean - mean) * torch.exp(-log_std), own.log_variance - 2 * log_std
        )

    @torch.no_grad()
    def _spread_of_priors(self) -> Float[Tensor, ""]:
        """Variance of m_c between classes over s_c^2, mean over latent numbers; 0: all the same."""
        classes = torch.arange(self.num_classes, device=self.encoder_class.weight.device)
        mean, log_std = self.prior_of(classes)
        between = mean.var(dim=0, correction=0)
        return (between / torch.exp(2 * log_std).mean(dim=0)).mean()


def _given(labels: Labels | None) -> Labels:
    assert labels is not None, "an autoencoder with classes is called with labels"
    return labels


def _everywhere(vectors: Float[Tensor, "batch maps"]) -> Features:
    """One vector per image as maps that are the same in every cell."""
    return vectors[:, :, None, None]
