"""A distribution over codes: one logit per codebook entry.

    p(t given h) = softmax(W h + b)_t

The embedding that reads codes into the transformer is a table E of its own, or W itself (`tied`;
Press & Wolf 2017, arXiv:1608.05859): half the parameters of the head, which are most of a prior's
when the codebook is large. Codebooks of many thousands of codes: stages/heads/factorised.py.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.heads.base import Head, HeadOptions, SamplerSettings
from stages.nn.embedding import Embedding, embedding
from stages.nn.inverse_cdf import truncated
from stages.nn.linear_cross_entropy import linear_cross_entropy
from stages.nn.transformer import INITIAL_STD

__all__ = ["CategoricalHead", "CategoricalOptions"]


class CategoricalOptions(HeadOptions):
    """Its alphabet is the codebook's."""

    kind: Literal["categorical"]
    models: ClassVar[LatentKind] = "codes"
    tied: bool
    """Whether codes are read by the weights that predict them."""


class CategoricalHead(Head):
    """Softmax over the codebook."""

    noise_dim = 1

    def __init__(self, options: CategoricalOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.embedding = Embedding(spec.num_codes, width)
        self.project_out = nn.Linear(width, spec.num_codes)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        nn.init.normal_(self.project_out.weight, std=INITIAL_STD)
        nn.init.zeros_(self.project_out.bias)
        self.tied = options.tied
        if self.tied:
            # No second name for one tensor: files of weights hold each once.
            del self.embedding

    def embed(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Look up the vector of each code."""
        return embedding(tokens, self.project_out.weight if self.tied else self.embedding.weight)

    def logits(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows num_codes"]:
        """Unnormalised log-probabilities of the codes, float32."""
        return self.project_out(hidden).float()

    def log_prob(
        self, hidden: Float[Tensor, "batch tokens width"], tokens: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """log p(code given hidden) in nats per token."""
        return -linear_cross_entropy(hidden, self.project_out, tokens)

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
        logits = logits / settings.temperature
        kept = truncated(logits, settings.top_k, settings.top_p, settings.min_p)
        return settings.choose(kept, uniforms[:, 0])
