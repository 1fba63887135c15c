"""A distribution over a large codebook: the first part of a code, then the second given it.

    code = a S + b,    a < F, b < S,    F S = num_codes
    p(code given h) = p(a given h) p(b given h, a)
                    = softmax(W_1 h)_a softmax(W_2 g(h, a))_b

Two small tables in the place of one of num_codes rows: 2^9 + 2^9 instead of 2^18. For bottlenecks
whose codes are words of bits (lookup_free) or of digits (fsq) the parts are the leading and the
last digits. Asymmetric, 6 + 12 bits, in Open-MAGVIT2 (Luo et al. 2024, arXiv:2409.04410, section
3.2). Exact: a chain of two factors, nothing is taken to be independent.

Differs: there a small transformer goes from part to part; here g is one gated feed-forward block on
h + e(a), which is all that a sequence of two needs.

Temperature, truncation and guidance act on each factor in turn; top_k 5 keeps 5 firsts and, for
each, 5 seconds.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.heads.base import Head, HeadOptions, SamplerSettings
from stages.nn.embedding import Embedding
from stages.nn.inverse_cdf import index_from_uniform, truncated
from stages.nn.linear_cross_entropy import linear_cross_entropy
from stages.nn.rms_norm import RMSNorm
from stages.nn.transformer import INITIAL_STD, GatedFeedForward

__all__ = ["FactorisedHead", "FactorisedOptions"]


class FactorisedOptions(HeadOptions):
    """Where codes are cut."""

    kind: Literal["factorised"]
    models: ClassVar[LatentKind] = "codes"
    whole_codes: ClassVar[bool] = False
    first: int = Field(ge=2)
    """F, values of the first part; the number of codes is a multiple of it, at least twofold."""


class FactorisedHead(Head):
    """Softmax over the first part, softmax over the second given the first."""

    noise_dim = 2

    def __init__(self, options: FactorisedOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.second, rest = divmod(spec.num_codes, options.first)
        if rest or self.second < 2:
            raise ParamsError(
                f"head.first: must divide the number of codes and leave 2 or more for the second "
                f"part; got {options.first} of {spec.num_codes} codes"
            )
        self.first_embedding = Embedding(options.first, width)
        self.second_embedding = Embedding(self.second, width)
        self.project_first = nn.Linear(width, options.first)
        self.told = Embedding(options.first, width)
        self.norm = RMSNorm(width)
        self.between = GatedFeedForward(width)
        self.project_second = nn.Linear(width, self.second)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=INITIAL_STD)

    def embed(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """The sum of the vectors of both parts."""
        first, second = self._parts(tokens)
        return self.first_embedding(first) + self.second_embedding(second)

    def log_prob(
        self, hidden: Float[Tensor, "batch tokens width"], tokens: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """log p(code given hidden) in nats per token."""
        first, second = self._parts(tokens)
        told = self._told(hidden, first)
        return -(
            linear_cross_entropy(hidden, self.project_first, first)
            + linear_cross_entropy(told, self.project_second, second)
        )

    def first_logits(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows first"]:
        """Unnormalised log-probabilities of the first part, float32."""
        return self.project_first(hidden).float()

    def second_logits(
        self, hidden: Float[Tensor, "*rows width"], first: Int[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows second"]:
        """Unnormalised log-probabilities of the second part given the first, float32."""
        return self.project_second(self._told(hidden, first)).float()

    def _told(self, hidden: Tensor, first: Tensor) -> Tensor:
        state = hidden + self.told(first)
        return state + self.between(self.norm(state))

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Int[Tensor, " batch"]:
        """One code per row: its first part by one uniform, its second by another."""

        def drawn(logits: Tensor, without_class: Tensor | None, numbers: Tensor) -> Tensor:
            if without_class is not None:
                logits = without_class + settings.guidance * (logits - without_class)
            kept = truncated(
                logits / settings.temperature, settings.top_k, settings.top_p, settings.min_p
            )
            return index_from_uniform(kept, numbers)

        without = None if unconditional is None else self.first_logits(unconditional)
        first = drawn(self.first_logits(hidden), without, uniforms[:, 0])
        without = None if unconditional is None else self.second_logits(unconditional, first)
        second = drawn(self.second_logits(hidden, first), without, uniforms[:, 1])
        return first * self.second + second

    def _parts(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens // self.second, tokens % self.second
