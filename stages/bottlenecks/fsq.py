"""Finite scalar quantization: every number is rounded to one of a few levels; there is no codebook.

A cell has one number per entry of `levels`. Each is bounded, so that L integers are in reach, and
rounded; its code is its digits in the mixed base of the levels (Mentzer et al. 2023, section 3.1
and appendix A.1, arXiv:2309.15505):

    bound(z) = h tanh(z + s) - o,    h = (L - 1)(1 + 1e-3) / 2,    o = 1/2 for even L, else 0
    digit = round(bound(z)) + floor(L / 2),    vector = round(bound(z)) / floor(L / 2)
    code = sum over i of digit_i * L_1 ... L_(i-1)

tanh(s) = o / h makes bound(0) = 0. The gradient passes the rounding straight through. No code can
die, because none has a place of its own to be left in: there is no auxiliary loss, no start and no
revival. The paper's advice is at least 5 levels each; for 2^8 codes [8, 6, 5], for 2^9 [8, 8, 8],
for 2^10 [8, 5, 5, 5], for 2^12 [7, 5, 5, 5, 5].

Differs: the paper's listing has s = tan(o / h) and h = (L - 1)(1 - 1e-3) / 2; with the inverse of
tanh the middle is where the text puts it, and with h a little larger, not smaller, the inverse
exists for L = 2 as well; the integers in reach are the same.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.code_gradient import straight_through
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["FSQOptions", "FiniteScalarQuantizer"]

# Share by which the bound reaches beyond the outermost levels; the authors' value, with a plus.
_MARGIN = 1e-3

Numbers = Float[Tensor, "batch dim grid_height grid_width"]


class FSQOptions(BottleneckOptions):
    """Parameters of finite scalar quantization."""

    latents = "codes"

    kind: Literal["fsq"]
    levels: tuple[Annotated[int, Field(ge=2, le=256)], ...] = Field(min_length=1)
    """Levels of each number of a cell; their product is the size of the alphabet."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        num_codes = math.prod(self.levels)
        return LatentSpec("codes", features.grid_height, features.grid_width, num_codes)


class FiniteScalarQuantizer(Bottleneck):
    """Bounded numbers, rounded.

    Attributes:
        levels: L of each number, (dim, 1, 1).
        place_values: What a digit counts in a code, (dim, 1, 1).
    """

    levels: Tensor
    place_values: Tensor

    def __init__(self, options: FSQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        dim = len(options.levels)
        self.project_in = latents_from_features("spatial", features, dim)
        self.project_out = features_from_latents("spatial", features, dim)
        levels = torch.tensor(options.levels).view(-1, 1, 1)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("place_values", levels.cumprod(0) // levels, persistent=False)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Bound, round and project back; there is no loss."""
        with torch.autocast(features.device.type, enabled=False):
            bounded = self._bound(self.project_in(features.float()))
            rounded = straight_through(bounded, bounded.round())
            quantized = self.project_out(rounded / self._half)
        return Bottlenecked(
            features=quantized,
            kl=None,
            auxiliary=bounded.new_zeros(()),
            codes=self._codes(bounded.detach().round()),
        )

    def encode(self, features: Features) -> Codes:
        """The code of each cell."""
        with torch.autocast(features.device.type, enabled=False):
            return self._codes(self._bound(self.project_in(features.float())).round())

    def decode(self, latents: Codes) -> Features:
        """Features of the levels that the codes' digits stand for."""
        with torch.autocast(latents.device.type, enabled=False):
            digits = latents.unsqueeze(1) // self.place_values % self.levels
            return self.project_out((digits - self._half) / self._half)

    @property
    def _half(self) -> Tensor:
        """Digits below the middle one; also what brings integers into [-1, 1]."""
        return self.levels // 2

    def _bound(self, numbers: Numbers) -> Numbers:
        reach = (self.levels - 1) * ((1 + _MARGIN) / 2)
        offset = (1 - self.levels % 2) / 2
        return reach * torch.tanh(numbers + torch.atanh(offset / reach)) - offset

    def _codes(self, integers: Numbers) -> Codes:
        return ((integers.long() + self._half) * self.place_values).sum(dim=1)
