"""A Laplace distribution around the decoder's output, with one scale for all numbers.

    -log p(x given z) = ||x - location||_1 / scale + D log(2 scale)

Errors cost their size, not their square: a few large ones weigh less than under a Gaussian, and the
best location is the median, so edges come out sharper. The scale is the lever between sharpness and
structure, as sigma is of `gaussian`:

    fixed     `value`
    learned   a parameter that starts at `value`
    optimal   scale = mean absolute error, the maximum of the likelihood over it: of the batch in
              training (of its piece, where a batch is cut into several), of training lately
              otherwise

At the optimum the first term is D and the loss D log(mean absolute error) plus a constant; no
gradient need pass through the scale, as in the sigma-VAE (Rybkin et al. 2021), whose argument for
the Gaussian holds here too. The scale stays above the mean absolute rounding error of 8-bit
intensities (2/255 / 4): below it a density would describe the grid of intensities and grow without
bound.
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

__all__ = ["Laplace", "LaplaceOptions"]

_ROUNDING_ERROR = 2 / 255 / 4


class LaplaceOptions(LikelihoodOptions):
    """Parameters of the Laplace likelihood."""

    discretized = False

    kind: Literal["laplace"]
    scale: Literal["fixed", "learned", "optimal"]
    """Where the scale comes from."""
    value: float = Field(ge=_ROUNDING_ERROR, le=100)
    """Scale in intensities of [-1, 1], 1 / sqrt 2 of the standard deviation: the fixed one, or
    where the others start; at 100 the density is flat over all of them."""
    decay: float = Field(ge=0, lt=1)
    """Of the running mean absolute error that `optimal` uses outside training, per step."""


class Laplace(Likelihood):
    """Independent Laplace numbers of one scale; the decoder emits their location."""

    running_mean_error: Float[Tensor, ""]

    def __init__(self, options: LaplaceOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels
        self._step = StepSums()
        if options.scale == "learned":
            self.log_scale = nn.Parameter(torch.tensor(math.log(options.value)))
        if options.scale == "optimal":
            self.register_buffer("running_mean_error", torch.tensor(options.value))

    @property
    def num_parameters(self) -> int:
        """One map per channel: the location."""
        return self.channels

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The scale outside training."""
        if self.options.scale == "learned":
            return self.log_scale.exp().clamp_min(_ROUNDING_ERROR)
        if self.options.scale == "optimal":
            return self.running_mean_error.clamp_min(_ROUNDING_ERROR)
        return torch.tensor(self.options.value)

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p(images given locations); in training, `optimal` looks at this batch."""
        errors = mean_of_each((images.float() - parameters.float()).abs())
        if self.options.scale == "optimal" and self.training:
            scale = self._fit(errors)
        else:
            scale = self.scale
        return -images[0].numel() * (errors / scale + math.log(2) + scale.log())

    @torch.no_grad()
    def _fit(self, errors: Nats) -> Float[Tensor, ""]:
        mean_error = errors.mean()
        self._step.add(mean_error, torch.ones_like(mean_error))
        return mean_error.clamp_min(_ROUNDING_ERROR)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the running value of `optimal` follow the pieces of the step."""
        taken = self._step.take()
        if taken is not None:
            total, pieces = taken
            self.running_mean_error.lerp_(total / pieces, 1 - self.options.decay)

    def mean(self, parameters: Parameters) -> Images:
        """The location, which is mean and median, clamped to [-1, 1]."""
        return parameters.float().clamp(-1, 1)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw, clamped to [-1, 1]."""
        uniform = torch.rand(parameters.shape, generator=generator, device=generator.device)
        # u in [-1, 1) has the sign of the error; 1 - |u| is the chance of a larger one.
        signed = 2 * uniform.to(parameters.device) - 1
        errors = -torch.sign(signed) * torch.log1p(-signed.abs().clamp_max(1 - 1e-7))
        return (parameters.float() + self.scale * errors).clamp(-1, 1)
