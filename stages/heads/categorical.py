"""A distribution over codes: one logit per codebook entry.

    p(t given h) = softmax(W h + b)_t

The embedding that reads codes into the transformer is a table of its own, not W: input and output
play different parts, and at these sizes the table is small.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.heads.base import Head, HeadOptions, SamplerSettings
from stages.nn.inverse_cdf import truncated
from stages.nn.transformer import INITIAL_STD

__all__ = ["CategoricalHead", "CategoricalOptions"]


class CategoricalOptions(HeadOptions):
    """It has no numbers to choose: the alphabet is the codebook's."""

    kind: Literal["categorical"]
    models: ClassVar[LatentKind] = "codes"


class CategoricalHead(Head):
    """Softmax over the codebook."""

    noise_dim = 1

    def __init__(self, options: CategoricalOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.embedding = nn.Embedding(spec.num_codes, width)
        self.project_out = nn.Linear(width, spec.num_codes)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        nn.init.normal_(self.project_out.weight, std=INITIAL_STD)
        nn.init.zeros_(self.project_out.bias)

    def embed(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Look up the vector of each code."""
        return self.embedding(tokens)

    def logits(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows num_codes"]:
        """Unnormalised log-probabilities of the codes, float32."""
        return self.project_out(hidden).float()

    def log_prob(
        self, hidden: Float[Tensor, "batch tokens width"], tokens: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """log p(code given hidden) in nats per token."""
        logits = self.logits(hidden)
        return -F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(
            tokens.shape
        )

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Int[Tensor, " batch"]:
        """One code per row: guidance, then temperature, then truncation, then one uniform.

        Guidance mixes logits (Ho & Salimans 2022, arXiv:2207.12598), which is the density ratio of
        `SamplerSettings` up to the normaliser: exact for a softmax.
        """
        logits = self.logits(hidden)
        if unconditional is not None:
            without_class = self.logits(unconditional)
            logits = without_class + settings.guidance * (logits - without_class)
        kept = truncated(logits / settings.temperature, settings.top_k, settings.top_p)
        return settings.choose(kept, uniforms[:, 0])
