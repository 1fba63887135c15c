"""The family of autoencoders: the first stage as the rest of the line sees it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.backbones.base import Backbone
from stages.bottlenecks.base import Bottleneck, Bottlenecked, LatentSpec
from stages.core.sections import MemberOptions
from stages.core.shapes import Codes, Images, Nats
from stages.likelihoods.base import Likelihood
from stages.nn.distributions import DiagonalGaussian

__all__ = ["Autoencoder", "AutoencoderOptions", "Reconstructed"]


class AutoencoderOptions(MemberOptions):
    """Base of the autoencoders' options."""


@dataclass(frozen=True)
class Reconstructed:
    """The result of a training pass."""

    loss: Float[Tensor, ""]
    """(distortion + weighted rate) / D + auxiliary, averaged over the batch: what is minimised."""
    distortion: Nats
    """-log p(x given z) of each image."""
    bottlenecked: Bottlenecked
    reconstructions: Images
    """E[x given z]."""


class Autoencoder(nn.Module, ABC):
    """Images to latents and back.

    Attributes:
        backbone, bottleneck, likelihood: Its parts.
    """

    backbone: Backbone
    bottleneck: Bottleneck
    likelihood: Likelihood

    @abstractmethod
    def __init__(
        self, options: Any, backbone: Backbone, bottleneck: Bottleneck, likelihood: Likelihood
    ) -> None:
        super().__init__()

    @property
    @abstractmethod
    def spec(self) -> LatentSpec:
        """What it stores and a prior has to model; scale 1: the bottleneck's own units."""

    @abstractmethod
    def forward(self, images: Images, generator: torch.Generator | None = None) -> Reconstructed:
        """One training pass over images in [-1, 1]; randomness from `generator`."""

    @abstractmethod
    def encode(self, images: Images) -> Codes | DiagonalGaussian:
        """What is stored of these images."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents in the bottleneck's own units -> parameters of the likelihood."""
