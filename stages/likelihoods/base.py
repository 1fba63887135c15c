"""The family of decoder likelihoods p(x given z).

The decoder emits `num_parameters(channels)` maps; a likelihood reads them as a distribution over
images in [-1, 1]. All log-probabilities are nats per image.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.core.shapes import Images, ImageShape, Nats

__all__ = [
    "ChooseLevels",
    "Levels",
    "Likelihood",
    "LikelihoodOptions",
    "Parameters",
    "mean_of_each",
]

Parameters = Float[Tensor, "batch parameters height width"]
Levels = Int[Tensor, "batch channels height width"]

ChooseLevels = Callable[
    [Float[Tensor, "batch some_channels some_rows some_columns 256"], tuple[slice, slice, slice]],
    Levels,
]
"""(probabilities of the levels of some places, which channels, rows and columns they are) -> one
level of each; sums to one, float64 on the CPU."""


def mean_of_each(numbers: Images) -> Float[Tensor, " batch"]:
    """The mean over each image.

    A sum and a quotient: the gradient of PyTorch's mean is written out in an order of its own, and
    those of all layers before it follow.
    """
    return numbers.sum(dim=(1, 2, 3)) / numbers[0].numel()


class LikelihoodOptions(MemberOptions):
    """Base of the likelihoods' options."""

    discretized: ClassVar[bool]
    """Whether it is a true probability of 8-bit images, so that bits per dim mean something; where
    that hangs on a parameter, a property: ask the options of a run, not their class."""

    @property
    def draws_targets(self) -> bool:
        """Whether training draws what is to be explained of an image; default: no."""
        return False


class Likelihood(nn.Module, ABC):
    """A distribution over images given the decoder's output."""

    @abstractmethod
    def __init__(self, options: Any, image: ImageShape) -> None:
        super().__init__()

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of maps the decoder must emit."""

    @abstractmethod
    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p(images given parameters) in nats per image."""

    @abstractmethod
    def mean(self, parameters: Parameters) -> Images:
        """E[x given z], in [-1, 1]; where that cannot be computed, what the member says instead."""

    @abstractmethod
    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw from p(x given z), in [-1, 1]."""

    def walk(self, parameters: Parameters, choose: ChooseLevels) -> Levels:
        """The 8-bit image that somebody chooses number by number, told p of each given all before.

        Which numbers are asked for together, and in what order, hangs on the shape alone, and
        what is told on the parameters and on earlier answers alone: so an encoder that knows the
        image and a decoder that learns it here are told the same.

        Args:
            parameters: As the decoder emits them.
            choose: Asked once for every number.

        Returns:
            int64 in 0..255, on the CPU.

        Raises:
            ParamsError: If it is no probability of 8-bit images.
        """
        raise ParamsError(
            "likelihood: images have bits only under a probability of 8-bit images; this one is "
            "none; train with likelihood.kind: discretized_logistic, or autoregressive with 256 "
            "levels"
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Called after every optimiser step (running values follow here); default: no-op."""

    def target(self, images: Images, generator: torch.Generator | None) -> Images:
        """The images the likelihood has to explain (binarised, for `bernoulli`); default: same.

        Targets are targets of themselves: what was drawn once, such as a test split binarised with
        a stream of its own, may pass through the model as it is.

        Args:
            images: Images in [-1, 1].
            generator: Source of randomness, in training or evaluation mode alike; None asks for the
                deterministic form.
        """
        return images
