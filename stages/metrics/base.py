"""What a metric is: it sees the reference split once, batch by batch, and hands out figures.

It keeps sums in float64; its figures do not depend on how the split was cut into batches.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Codes, Nats, Pixels
from stages.metrics.figure import Direction, Figure
from stages.metrics.protocol import Protocol
from stages.nn.distributions import Posterior

__all__ = ["Direction", "Figure", "Metric", "Observation", "Protocol"]


@dataclass(frozen=True)
class Observation:
    """A batch of the reference split as the trained line sees it.

    Continuous latents are in the autoencoder's own units here: the scale of the stored ones is
    already undone, and `log_prior` is the density of `latents` in these units.
    """

    images: Pixels
    reconstructions: Pixels
    """E[x given z], rounded; from the posterior mean where there is one."""
    log_prior: Nats
    """log p(latents given class)."""
    distortion: Nats
    """-log p(images given latents)."""
    codes: Codes | None = None
    latents: Float[Tensor, "batch latent_channels grid_height grid_width"] | None = None
    """One draw per image; the point itself for a deterministic autoencoder."""
    posterior: Posterior | None = None


class Metric(ABC):
    """A family of figures over the reference split."""

    title: ClassVar[str]
    """Heading of its figures in the report."""

    @abstractmethod
    def update(self, seen: Observation) -> None:
        """Take in one batch."""

    @abstractmethod
    def figures(self, protocol: Protocol) -> list[Figure]:
        """The figures over all batches so far.

        Args:
            protocol: What is common to all figures; each metric adds its own.
        """
