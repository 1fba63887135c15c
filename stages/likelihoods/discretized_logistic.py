"""A probability of every 8-bit intensity: mixtures of logistics, integrated over each step.

With step h = 2/255 between intensities, weights pi, means mu and scales s for each number:

    p(x) = sum over k of pi_k [F((x + h/2 - mu_k) / s_k) - F((x - h/2 - mu_k) / s_k)]

where F is the logistic function; the bins of -1 and 1 reach to infinity, so that the 256
probabilities sum to one and nats become true bits per dim (PixelCNN++, Salimans et al. 2017,
Eq. 2).

Differs: channels are independent given z (the decoder has seen them all); the difference of the two
F is exact in logarithms, where PixelCNN++ falls back on the density for small bins; means start
spread over [-1, 1], so that components differ from the first step.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.core.shapes import Images, ImageShape, Nats
from stages.likelihoods.base import Likelihood, LikelihoodOptions, Parameters

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticOptions"]

_STEP = 2 / 255
# From a logistic that puts 97 % into one bin to one that is flat over all of them.
_LOG_SCALE_RANGE = (-7.0, 4.0)

Components = Float[Tensor, "batch channels mixtures height width"]


class DiscretizedLogisticOptions(LikelihoodOptions):
    """Parameters of the discretized logistic mixture."""

    discretized = True

    kind: Literal["discretized_logistic"]
    num_mixtures: int = Field(ge=1)
    """Logistics per number of the image."""


class DiscretizedLogistic(Likelihood):
    """A mixture of logistics on the 8-bit grid; the decoder emits logits, means and log-scales."""

    centres: Float[Tensor, "mixtures 1 1"]

    def __init__(self, options: DiscretizedLogisticOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels
        spread = (torch.arange(options.num_mixtures) + 0.5) / options.num_mixtures * 2 - 1
        self.register_buffer("centres", spread.view(-1, 1, 1), persistent=False)

    @property
    def num_parameters(self) -> int:
        """Logit, mean and log-scale of every component of every channel."""
        return 3 * self.options.num_mixtures * self.channels

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p of 8-bit images, given as intensities in [-1, 1]."""
        log_weights, means, log_scales = self._components(parameters)
        offsets = images.float().unsqueeze(2) - means
        upper = (offsets + _STEP / 2) * torch.exp(-log_scales)
        lower = (offsets - _STEP / 2) * torch.exp(-log_scales)
        # log [F(upper) - F(lower)]
        #   = log F(upper) + log F(-lower) + log(1 - exp(lower - upper)).
        inside = torch.log(-torch.expm1(-_STEP * torch.exp(-log_scales)))
        log_below_upper, log_above_lower = F.logsigmoid(upper), F.logsigmoid(-lower)
        darkest = images.unsqueeze(2) < -1 + _STEP / 2
        lightest = images.unsqueeze(2) > 1 - _STEP / 2
        log_bins = torch.where(
            darkest,
            log_below_upper,
            torch.where(lightest, log_above_lower, log_below_upper + log_above_lower + inside),
        )
        return torch.logsumexp(log_weights + log_bins, dim=2).sum(dim=(1, 2, 3))

    def mean(self, parameters: Parameters) -> Images:
        """The mean of the mixture clipped to [-1, 1], in closed form.

        E[clip(X)] = -1 + integral over [-1, 1] of P(X > t). The 8-bit mean is the midpoint rule of
        the same integral, so the two differ by less than half a step, and hardly at all for scales
        above a step.
        """
        log_weights, means, log_scales = self._components(parameters)
        scales = log_scales.exp()
        above = scales * (F.softplus((means + 1) / scales) - F.softplus((means - 1) / scales))
        return ((log_weights.exp() * above).sum(dim=2) - 1).clamp(-1, 1)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw on the 8-bit grid."""
        log_weights, means, log_scales = self._components(parameters)
        uniforms = torch.rand((2, *means.shape), generator=generator, device=generator.device)
        # Away from 0 and 1, where the logarithms below are infinite.
        choice, place = uniforms.to(means.device).clamp(1e-7, 1 - 1e-7)
        # Gumbel's maximum: the largest of log pi_k - log(-log u) is component k with weight pi_k.
        chosen = (log_weights - torch.log(-torch.log(choice))).argmax(dim=2, keepdim=True)
        draws = (means + log_scales.exp() * torch.logit(place)).gather(2, chosen).squeeze(2)
        return ((draws.clamp(-1, 1) + 1) / _STEP).round() * _STEP - 1

    def _components(self, parameters: Parameters) -> tuple[Components, Components, Components]:
        batch, _, height, width = parameters.shape
        maps = parameters.float().reshape(
            batch, 3, self.channels, self.options.num_mixtures, height, width
        )
        logits, means, log_scales = maps.unbind(dim=1)
        # A scale of one component's share of the range is where learning starts.
        start = -math.log(self.options.num_mixtures)
        return (
            F.log_softmax(logits, dim=2),
            means + self.centres,
            (log_scales + start).clamp(*_LOG_SCALE_RANGE),
        )
