"""A probability of every 8-bit intensity: mixtures of logistics, integrated over each step.

With step h = 2/255 between intensities, weights pi, means mu and scales s for each number:

    p(x) = sum over k of pi_k [F((x + h/2 - mu_k) / s_k) - F((x - h/2 - mu_k) / s_k)]

where F is the logistic function; the bins of -1 and 1 reach to infinity, so that the 256
probabilities sum to one and nats become true bits per dim (PixelCNN++, Salimans et al. 2017,
Eq. 2).

Channels are `independent` given z, or `linear`: the means of a channel move with the values of the
channels before it in the same pixel, by factors that the decoder emits (there, section 2.2),

    mu_k(green) = mu_k + a_k x(red),    mu_k(blue) = mu_k + b_k x(red) + c_k x(green)

What z leaves open is mostly brightness, which all channels share: said once, it is not paid thrice.

Differs: every channel has weights pi of its own; the difference of the two F is exact in
logarithms, where PixelCNN++ falls back on the density for small bins; means start spread over
[-1, 1], so that components differ from the first step. Of linear channels, `mean` puts the means of
the channels before in the place of their values, which is E[x] but for the clipping.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.core.shapes import Images, ImageShape, Nats
from stages.likelihoods.base import (
    ChooseLevels,
    Levels,
    Likelihood,
    LikelihoodOptions,
    Parameters,
)

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticOptions"]

_STEP = 2 / 255
# From a logistic that puts 97 % into one bin to one that is flat over all of them.
_LOG_SCALE_RANGE = (-7.0, 4.0)

Components = Float[Tensor, "batch channels mixtures height width"]
OfChannel = Float[Tensor, "batch mixtures height width"]
Factors = Float[Tensor, "batch pairs mixtures height width"]


class DiscretizedLogisticOptions(LikelihoodOptions):
    """Parameters of the discretized logistic mixture."""

    discretized = True

    kind: Literal["discretized_logistic"]
    num_mixtures: int = Field(ge=1)
    """Logistics per number of the image."""
    channels: Literal["independent", "linear"]
    """Of a pixel, given z; the same thing for grey images."""


class DiscretizedLogistic(Likelihood):
    """A mixture of logistics on the 8-bit grid; the decoder emits logits, means and log-scales."""

    centres: Float[Tensor, "mixtures 1 1"]

    def __init__(self, options: DiscretizedLogisticOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels
        linear = options.channels == "linear"
        self.pairs = image.channels * (image.channels - 1) // 2 if linear else 0
        spread = (torch.arange(options.num_mixtures) + 0.5) / options.num_mixtures * 2 - 1
        self.register_buffer("centres", spread.view(-1, 1, 1), persistent=False)

    @property
    def num_parameters(self) -> int:
        """Logit, mean and log-scale of every component of every channel, and their factors."""
        return (3 * self.channels + self.pairs) * self.options.num_mixtures

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p of 8-bit images, given as intensities in [-1, 1]."""
        log_weights, means, log_scales, factors = self._components(parameters)
        if self.pairs:
            values = images.float().unbind(dim=1)
            given = [_given(means, factors, values[:channel]) for channel in range(self.channels)]
            means = torch.stack(given, dim=1)
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
        log_weights, means, log_scales, factors = self._components(parameters)
        if self.pairs == 0:
            return _clipped_mean(log_weights, means, log_scales, dim=2)
        values: list[Tensor] = []
        for channel in range(self.channels):
            centres = _given(means, factors, values)
            of_channel = (log_weights[:, channel], centres, log_scales[:, channel])
            values.append(_clipped_mean(*of_channel, dim=1))
        return torch.stack(values, dim=1)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw on the 8-bit grid."""
        log_weights, means, log_scales, factors = self._components(parameters)
        uniforms = torch.rand((2, *means.shape), generator=generator, device=generator.device)
        # Away from 0 and 1, where the logarithms below are infinite.
        choice, place = uniforms.to(means.device).clamp(1e-7, 1 - 1e-7)
        # Gumbel's maximum: the largest of log pi_k - log(-log u) is component k with weight pi_k.
        chosen = (log_weights - torch.log(-torch.log(choice))).argmax(dim=2, keepdim=True)
        noise = log_scales.exp() * torch.logit(place)
        values: list[Tensor] = []
        for channel in range(self.channels):
            centres = _given(means, factors, values) if self.pairs else means[:, channel]
            draws = (centres + noise[:, channel]).gather(1, chosen[:, channel]).squeeze(1)
            values.append(((draws.clamp(-1, 1) + 1) / _STEP).round() * _STEP - 1)
        return torch.stack(values, dim=1)

    @torch.no_grad()
    def walk(self, parameters: Parameters, choose: ChooseLevels) -> Levels:
        """A row of the image at a time; linear channels one after the other.

        Differences of F in float64, which is as fine as any entropy coder asks for.
        """
        log_weights, means, log_scales, factors = (
            maps.cpu().double() for maps in self._components(parameters)
        )
        whole = slice(0, parameters.shape[3])
        rows: list[Levels] = []
        for row in range(parameters.shape[2]):
            at, here = slice(row, row + 1), (..., slice(row, row + 1), slice(None))
            told = log_weights[here].exp(), means[here], log_scales[here].exp()
            if self.pairs == 0:
                probabilities = _levels_given(*told)
                rows.append(choose(probabilities, (slice(0, self.channels), at, whole)))
                continue
            weights, centres, scales = told
            chosen: list[Tensor] = []
            for channel in range(self.channels):
                values = [level[:, 0].double() * _STEP - 1 for level in chosen]
                given = _given(centres, factors[here], values).unsqueeze(1)
                one = slice(channel, channel + 1)
                probabilities = _levels_given(weights[:, one], given, scales[:, one])
                chosen.append(choose(probabilities, (one, at, whole)))
            rows.append(torch.cat(chosen, dim=1))
        return torch.cat(rows, dim=2)

    def _components(
        self, parameters: Parameters
    ) -> tuple[Components, Components, Components, Factors]:
        mixtures = self.options.num_mixtures
        maps = parameters.float().unflatten(1, (-1, mixtures))
        own, factors = maps.split([3 * self.channels, self.pairs], dim=1)
        logits, means, log_scales = own.chunk(3, dim=1)
        # A scale of one component's share of the range is where learning starts.
        start = -math.log(self.options.num_mixtures)
        return (
            F.log_softmax(logits, dim=2),
            means + self.centres,
            (log_scales + start).clamp(*_LOG_SCALE_RANGE),
            factors,
        )


def _given(means: Components, factors: Factors, before: Sequence[Tensor]) -> OfChannel:
    """Means of the channel that follows those whose values, (batch, height, width), are given."""
    channel = len(before)
    first = channel * (channel - 1) // 2
    centres = means[:, channel]
    for index, values in enumerate(before):
        centres = centres + factors[:, first + index] * values.unsqueeze(1)
    return centres


def _levels_given(
    weights: Components, means: Components, scales: Components
) -> Float[Tensor, "batch channels height width levels"]:
    """p of every level; mixtures are summed one by one, which bounds the memory."""
    edges = torch.linspace(-1, 1, 256, dtype=torch.float64)[:-1] + _STEP / 2
    below = torch.zeros((), dtype=torch.float64)
    for k in range(means.shape[2]):
        weight, mean, scale = (maps[:, :, k, ..., None] for maps in (weights, means, scales))
        below = below + weight * torch.sigmoid((edges - mean) / scale)
    # The outer bins reach to infinity, where the distribution function is 0 and 1; rounding may
    # put it above 1 before.
    low, high = torch.zeros_like(below[..., :1]), torch.ones_like(below[..., :1])
    return torch.diff(below, dim=-1, prepend=low, append=high).clamp_min(0)


def _clipped_mean(log_weights: Tensor, means: Tensor, log_scales: Tensor, dim: int) -> Tensor:
    """E[clip(X)] of mixtures whose components lie along `dim`."""
    scales = log_scales.exp()
    above = scales * (F.softplus((means + 1) / scales) - F.softplus((means - 1) / scales))
    return ((log_weights.exp() * above).sum(dim=dim) - 1).clamp(-1, 1)
