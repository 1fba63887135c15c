"""The family of bottlenecks.

A bottleneck turns features into latents and latents back into features. What it stores is either
`codes` (integers on a grid) or `continuous` (a posterior per latent number: mean and log-variance).
What the latents cost is told in nats and weighed elsewhere (stages/objectives).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.core.sections import MemberOptions
from stages.core.shapes import Codes, Features, FeatureShape, Nats
from stages.nn.distributions import Posterior
from stages.nn.schedules import Step

__all__ = ["Bottleneck", "BottleneckOptions", "Bottlenecked", "LatentKind", "LatentSpec"]

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
    parts: tuple[tuple[int, int], ...] = ()
    """Rows and columns of several grids of codes (a stack, or coarse and fine) that stand end to
    end, each in raster order, in one row: grid_height is 1. Empty: one grid."""
    posterior: str = "gaussian"
    """Family of continuous latents' posteriors, whose standard prior they were charged against."""
    reference: tuple[float, ...] = ()
    """Parameters of that standard prior, where the family has several (stages/nn/posteriors.py)."""

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
    kl: Float[Tensor, "batch channels latent_rows latent_columns"] | None
    """KL of each latent dimension to the bottleneck's own prior, in nats; None: free of charge."""
    auxiliary: Float[Tensor, ""]
    """Unitless loss beside the likelihood (codebook, commitment), on the scale of nats per dim."""
    # The latents' grid may be another than that of the features.
    codes: Int[Tensor, "batch latent_rows latent_columns"] | None = None
    posterior: Posterior | None = None
    log_posterior: Nats | None = None
    """log q(codes given x) of codes that were drawn and carry no gradient."""
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
        codebook_parts: Shapes of the grids of a row that have a codebook each; (): all codes it
            stores are of one, or it stores none.
    """

    spec: LatentSpec
    codebook_parts: tuple[tuple[int, int], ...] = ()

    @abstractmethod
    def __init__(self, options: Any, features: FeatureShape) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """One pass with losses; in training, statistics updated.

        Args:
            features: What the encoder gave.
            generator: Latents are drawn from it.
            step: Where schedules stand; None: as after the last step.
        """

    @abstractmethod
    def encode(self, features: Features) -> Codes | Posterior:
        """What is stored: codes, or the posterior of continuous latents on the grid."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Features:
        """Latents (codes, or continuous numbers on the grid) back to features for the decoder."""

    def surrogate(self, passed: Bottlenecked, cost: Nats) -> Float[Tensor, ""]:
        """A loss whose gradient stands in for one that draws cut off; default: none.

        Args:
            passed: What `forward` gave.
            cost: distortion + KL of each image in nats.

        Returns:
            Mean over the batch, in nats.
        """
        return cost.new_zeros(())

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Initialise from features of a first, large batch (k-means codebooks); default: no-op."""

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Called after every optimiser step (dead codes are revived here); default: no-op."""
