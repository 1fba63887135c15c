"""The family of bottlenecks.

A bottleneck turns features into latents and latents back into features. What it stores is either
`codes` (integers on a grid) or `continuous` (a Gaussian per latent number: mean and log-variance).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.core.sections import MemberOptions
from stages.core.shapes import Codes, Features, FeatureShape, Nats
from stages.nn.distributions import DiagonalGaussian

__all__ = ["Bottleneck", "BottleneckOptions", "Bottlenecked", "LatentSpec"]

LatentKind = Literal["codes", "continuous"]


@dataclass(frozen=True)
class LatentSpec:
    """What a prior is asked to model."""

    kind: LatentKind
    grid_height: int
    grid_width: int
    num_codes: int = 0
    """Size of the alphabet; 0 for continuous latents."""
    channels: int = 0
    """Numbers per grid cell; 0 for codes."""
    scale: float = 1.0
    """Stored continuous latents = scale * the bottleneck's own; 1 / std over the training split."""
    deterministic: bool = False
    """Whether continuous latents are points (no variance)."""

    @property
    def tokens(self) -> int:
        """Grid cells per image."""
        return self.grid_height * self.grid_width

    @property
    def numbers(self) -> int:
        """Continuous numbers per image."""
        return self.tokens * self.channels


@dataclass(frozen=True)
class Bottlenecked:
    """The result of a training pass through a bottleneck."""

    features: Features
    """What the decoder gets."""
    rate: Nats
    """KL of each image in nats, weighted as the options ask; zeros where there is none."""
    auxiliary: Float[Tensor, ""]
    """Unitless loss beside the likelihood (codebook, commitment), on the scale of nats per dim."""
    codes: Codes | None = None
    posterior: DiagonalGaussian | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars for the curves, detached."""


class BottleneckOptions(MemberOptions):
    """Base of the bottlenecks' options."""

    latents: ClassVar[LatentKind]
    """What the member stores."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """What the prior will have to model, known before anything is trained."""
        raise NotImplementedError


class Bottleneck(nn.Module, ABC):
    """Between encoder and decoder.

    Attributes:
        spec: What it stores.
    """

    spec: LatentSpec

    @abstractmethod
    def __init__(self, options: Any, features: FeatureShape) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, features: Features, generator: torch.Generator | None = None) -> Bottlenecked:
        """One pass with losses: latents drawn from `generator`; in training, statistics updated."""

    @abstractmethod
    def encode(self, features: Features) -> Codes | DiagonalGaussian:
        """What is stored: codes, or the posterior of continuous latents on the grid."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Features:
        """Latents (codes, or continuous numbers on the grid) back to features for the decoder."""

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Initialise from features of a first, large batch (k-means codebooks); default: no-op."""

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Called after every optimiser step (dead codes are revived here); default: no-op."""
