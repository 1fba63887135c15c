"""A Gaussian around the decoder's output, with one standard deviation for all numbers.

    -log p(x given z) = ||x - mean||^2 / (2 sigma^2) + D/2 log(2 pi sigma^2)

sigma decides how much an error costs against the rate: the lever between sharpness and structure.

    fixed     `value`
    learned   a parameter that starts at `value`
    optimal   sigma^2 = mean squared error, the maximum of the likelihood over sigma (sigma-VAE,
              Rybkin et al. 2021, Eq. 5): of the batch in training (of its piece, where a batch is
              cut into several), of training lately otherwise

In `optimal` no gradient need pass through sigma: at the maximum the derivative with respect to it
is zero. sigma stays above the rounding noise of 8-bit intensities (2/255 / sqrt 12): below it a
density would describe the grid of intensities and grow without bound.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.core.shapes import Images, ImageShape, Nats
from stages.likelihoods.base import Likelihood, LikelihoodOptions, Parameters, mean_of_each
from stages.nn.processes import StepSums

__all__ = ["Gaussian", "GaussianOptions"]

_ROUNDING_NOISE = 2 / 255 / math.sqrt(12)


class GaussianOptions(LikelihoodOptions):
    """Parameters of the Gaussian likelihood."""

    discretized = False

    kind: Literal["gaussian"]
    sigma: Literal["fixed", "learned", "optimal"]
    """Where the standard deviation comes from."""
    value: float = Field(ge=_ROUNDING_NOISE, le=100)
    """Standard deviation in intensities of [-1, 1]: the fixed one, or where the others start; at
    100 the density is flat over all of them."""
    decay: float = Field(ge=0, lt=1)
    """Of the running mean squared error that `optimal` uses outside training, per step."""


class Gaussian(Likelihood):
    """N(mean, sigma^2 I); the decoder emits the mean."""

    running_mean_square: Float[Tensor, ""]

    def __init__(self, options: GaussianOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels
        self._step = StepSums()
        if options.sigma == "learned":
            self.log_sigma = nn.Parameter(torch.tensor(math.log(options.value)))
        if options.sigma == "optimal":
            self.register_buffer("running_mean_square", torch.tensor(options.value**2))

    @property
    def num_parameters(self) -> int:
        """One map per channel: the mean."""
        return self.channels

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """The standard deviation outside training."""
        if self.options.sigma == "learned":
            return self.log_sigma.exp().clamp_min(_ROUNDING_NOISE)
        if self.options.sigma == "optimal":
            return self.running_mean_square.sqrt().clamp_min(_ROUNDING_NOISE)
        return torch.tensor(self.options.value)

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log N(images; parameters, sigma^2 I); in training, `optimal` looks at this batch."""
        squares = mean_of_each((images.float() - parameters.float()).square())
        if self.options.sigma == "optimal" and self.training:
            sigma = self._fit(squares)
        else:
            sigma = self.sigma
        per_dim = squares / (2 * sigma.square()) + 0.5 * math.log(2 * math.pi) + sigma.log()
        return -images[0].numel() * per_dim

    @torch.no_grad()
    def _fit(self, squares: Nats) -> Float[Tensor, ""]:
        mean_square = squares.mean()
        self._step.add(mean_square, torch.ones_like(mean_square))
        return mean_square.sqrt().clamp_min(_ROUNDING_NOISE)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the running value of `optimal` follow the pieces of the step."""
        taken = self._step.take()
        if taken is not None:
            total, pieces = taken
            self.running_mean_square.lerp_(total / pieces, 1 - self.options.decay)

    def mean(self, parameters: Parameters) -> Images:
        """The Gaussian's mean, clamped to [-1, 1]."""
        return parameters.float().clamp(-1, 1)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw, clamped to [-1, 1]."""
        noise = torch.randn(parameters.shape, generator=generator, device=generator.device)
        noise = noise.to(parameters.device)
        return (parameters.float() + self.sigma * noise).clamp(-1, 1)
