"""Binary images: every intensity is black or white with a probability of its own.

    log p(x given z) = sum over pixels of b log p + (1 - b) log (1 - p),   b = (x + 1) / 2

Grey images are made binary first. `dynamic`: white with a probability equal to the grey value,
drawn anew each time (Salakhutdinov & Murray 2008); `threshold`: white from the middle grey upwards.
Binary images stay as they are, so a test split may be binarised once, by one draw, and judged so.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from stages.core.shapes import Images, ImageShape, Nats
from stages.likelihoods.base import Likelihood, LikelihoodOptions, Parameters

__all__ = ["Bernoulli", "BernoulliOptions"]


class BernoulliOptions(LikelihoodOptions):
    """Parameters of the Bernoulli likelihood."""

    discretized = False

    kind: Literal["bernoulli"]
    binarise: Literal["dynamic", "threshold"]
    """How grey images become binary."""

    @property
    def draws_targets(self) -> bool:
        """Whether black and white are drawn."""
        return self.binarise == "dynamic"


class Bernoulli(Likelihood):
    """Independent black or white; the decoder emits the logit of white."""

    def __init__(self, options: BernoulliOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels

    @property
    def num_parameters(self) -> int:
        """One map per channel: the logit of white."""
        return self.channels

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p of binary images, given as -1 and 1."""
        costs = F.binary_cross_entropy_with_logits(
            parameters.float(), (images.float() + 1) / 2, reduction="none"
        )
        return -costs.sum(dim=(1, 2, 3))

    def mean(self, parameters: Parameters) -> Images:
        """2 p - 1."""
        return torch.tanh(parameters.float() / 2)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """Black (-1) or white (1)."""
        return _draw(torch.sigmoid(parameters.float()), generator)

    def target(self, images: Images, generator: torch.Generator | None) -> Images:
        """Binary images as -1 and 1; without a generator, `dynamic` thresholds too."""
        if self.options.binarise == "dynamic" and generator is not None:
            return _draw((images.float() + 1) / 2, generator)
        return torch.where(images >= 0, 1.0, -1.0)


def _draw(probabilities: Images, generator: torch.Generator) -> Images:
    uniform = torch.rand(probabilities.shape, generator=generator, device=generator.device)
    return torch.where(uniform.to(probabilities.device) < probabilities, 1.0, -1.0)
