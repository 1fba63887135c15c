"""The family of autoencoders: the first stage as the rest of the line sees it.

An autoencoder joins a backbone, one or more bottlenecks, a likelihood and an objective:

    loss = (mean over images of distortion + cost of the KL) / D + auxiliary
    distortion = -log p(x given z)

Dividing by D, the number of intensities, makes learning rates and weights of auxiliary terms carry
over between image sizes. With the objective `beta` of weight 1 the first term is the negative
evidence lower bound per dim (Kingma & Welling 2013, Eq. 3).

Continuous latents are stored in coordinates in which the model's own prior is the standard one of
the posterior's family (N(0, I) for Gaussians), also where that prior is learned.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.backbones.base import Backbone
from stages.bottlenecks.base import Bottleneck, BottleneckOptions, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.core.shapes import Codes, FeatureShape, Images, ImageShape, Labels, Nats
from stages.likelihoods.base import Likelihood, Parameters
from stages.nn.distributions import Posterior
from stages.nn.schedules import Step
from stages.objectives.base import DimensionKL, Objective

__all__ = ["Autoencoder", "AutoencoderOptions", "Parts", "Reconstructed"]


class AutoencoderOptions(MemberOptions):
    """Base of the autoencoders' options."""

    def latent_spec(
        self, bottleneck: BottleneckOptions, features: FeatureShape, num_classes: int
    ) -> LatentSpec:
        """What the prior will have to model, known before anything is trained.

        Args:
            bottleneck: Options of the bottleneck between encoder and decoder.
            features: Shape of the backbone's features.
            num_classes: Classes in the data; 0: none.

        Raises:
            ParamsError: If the member cannot be made of such parts.
        """
        return bottleneck.latent_spec(features)


@dataclass(frozen=True)
class Parts:
    """What an autoencoder is made of."""

    image: ImageShape
    num_classes: int
    """Classes in the data; 0: none."""
    features: FeatureShape
    """What the backbone's encoder gives and its decoder takes."""
    backbone: Backbone
    make_bottleneck: Callable[[FeatureShape], Bottleneck]
    """A new bottleneck for features of some shape."""
    bottleneck: BottleneckOptions
    likelihood: Likelihood
    objective: Objective


@dataclass(frozen=True)
class Reconstructed:
    """The result of a training pass."""

    loss: Float[Tensor, ""]
    """What is minimised; see the module."""
    distortion: Nats
    """-log p(x given z) of each image."""
    kl: DimensionKL
    """Unweighted; (batch, 0) where latents are free of charge."""
    auxiliary: Float[Tensor, ""]
    """The bottlenecks' own terms."""
    reconstructions: Images
    """E[x given z]."""
    codes: Codes | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars for the curves, detached."""


class Autoencoder(nn.Module, ABC):
    """Images to latents and back.

    Attributes:
        likelihood: What the decoder's output means.
        num_classes: Classes it is conditioned on; 0: it looks at none.
        stores_mean_field: Whether the posterior told for storage is a looser one than the model's
            own q, that of `log_weights`.
        kl_groups: Names of groups of consecutive latent dimensions -> how many there are, in the
            order of `Reconstructed.kl`, where there is any.
        codebook_parts: Shapes of the grids of a row that have a codebook each; (): all codes it
            stores are of one, or it stores none.
    """

    likelihood: Likelihood
    num_classes: int = 0
    stores_mean_field: bool = False
    kl_groups: dict[str, int]
    codebook_parts: tuple[tuple[int, int], ...] = ()

    @abstractmethod
    def __init__(self, options: Any, parts: Parts) -> None:
        super().__init__()

    @property
    @abstractmethod
    def spec(self) -> LatentSpec:
        """What it stores and a prior has to model; scale 1: the bottleneck's own units."""

    @abstractmethod
    def forward(
        self,
        images: Images,
        labels: Labels | None = None,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Reconstructed:
        """One training pass.

        Args:
            images: In [-1, 1].
            labels: Classes; needed where `num_classes` is not 0, ignored elsewhere.
            generator: Targets and latents are drawn from it.
            step: Where schedules stand; None: as after the last step.
        """

    @abstractmethod
    def encode(self, images: Images, labels: Labels | None = None) -> Codes | Posterior:
        """What is stored of these images; deterministic."""

    @abstractmethod
    def decode(self, latents: Tensor, labels: Labels | None = None) -> Parameters:
        """Latents in the bottleneck's own units -> parameters of the likelihood."""

    def log_weights(
        self, images: Images, labels: Labels | None, draws: int, generator: torch.Generator
    ) -> Float[Tensor, "draws batch"]:
        """log p(x given z) + log p(z) - log q(z given x) for draws of q, under its own prior.

        The mean of their exponentials is an unbiased estimate of p(x) (Burda et al. 2016, Eq. 8).

        Args:
            images: The x, as the likelihood has to explain them.
            labels: Their classes, where the autoencoder looks at them.
            draws: Draws of each image.
            generator: Where draws come from.

        Raises:
            ParamsError: If latents are codes or points: they have no such weights.
        """
        raise ParamsError(
            "importance weights need continuous latents with a posterior; this autoencoder stores "
            f"{self.spec.kind}{' without one' if self.spec.deterministic else ''}"
        )

    @torch.no_grad()
    def start_from_data(
        self, images: Images, labels: Labels | None, generator: torch.Generator
    ) -> None:
        """Initialise from a first, large batch (codebooks); default: no-op."""

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Called after every optimiser step (dead codes are revived here); default: no-op."""
