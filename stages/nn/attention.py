"""Causal self-attention, over a whole sequence at once or one token at a time with a cache.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V        position t sees positions <= t only

(Vaswani et al. 2017, arXiv:1706.03762, Eq. 1). Sampling token by token would compute the keys and
values of the past again at every step; the cache keeps them, so a step costs one token.

Queries and keys may be root-mean-square normalised per head before the product (Henry et al. 2020,
arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442): logits are then bounded by
gain * sqrt(d), and training does not blow up when they grow. They may be turned by their places
(stages/nn/rotary.py); the cache keeps keys as they are compared, normalised and turned.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.rms_norm import rms_norm
from stages.nn.rotary import Rotations, rotated
from stages.nn.softmax_attention import attend
from stages.nn.transformer_options import CausalTransformerOptions

__all__ = ["READ_AT_ONCE", "ExactPast", "KeyValueCache", "OneToken", "Past", "SelfAttention"]

READ_AT_ONCE = 16
"""Compiled steps read a cache in lengths that are multiples of this."""

OneToken = Float[Tensor, "batch heads 1 head_dim"]


@dataclass
class KeyValueCache:
    """Keys and values of the tokens seen so far, for every layer; allocated once.

    What no token has filled yet is zero: compiled steps read some of it, with weight 0.
    """

    keys: Float[Tensor, "layers batch heads tokens head_dim"]
    values: Float[Tensor, "layers batch heads tokens head_dim"]
    length: int = 0
    """Tokens already inside."""


class Past(ABC):
    """What a new token sees in one layer."""

    @abstractmethod
    def attend(self, queries: OneToken, keys: OneToken, values: OneToken) -> OneToken:
        """Keep the token's keys and values; mix those of all tokens so far, its own included."""


@dataclass(frozen=True)
class ExactPast(Past):
    """The tokens of a cache, and no more."""

    cache: KeyValueCache
    layer: int

    def attend(self, queries: OneToken, keys: OneToken, values: OneToken) -> OneToken:
        """See `Past`."""
        now, seen = self.cache.length, self.cache.length + 1
        all_keys, all_values = self.cache.keys[self.layer], self.cache.values[self.layer]
        all_keys[:, :, now] = keys[:, :, 0]
        all_values[:, :, now] = values[:, :, 0]
        return F.scaled_dot_product_attention(
            queries, all_keys[:, :, :seen], all_values[:, :, :seen]
        )


class SelfAttention(nn.Module):
    """Multi-head causal self-attention with one fused projection for queries, keys and values."""

    def __init__(self, options: CausalTransformerOptions) -> None:
        super().__init__()
        width = options.width
        self.num_heads = options.num_heads
        self.head_dim = width // self.num_heads
        self.dropout = options.attention_dropout
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)
        self.gain = (
            nn.Parameter(torch.ones(2, 1, self.head_dim)) if options.query_key_norm else None
        )

    def _queries_keys_values(
        self, inputs: Float[Tensor, "batch tokens width"], rotations: Rotations | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each (batch, heads, tokens, head_dim); queries and keys normalised together."""
        batch, tokens, _ = inputs.shape
        projected = self.project_in(inputs).view(batch, tokens, 3, self.num_heads, self.head_dim)
        # Split and not indexed: the gradients are then put side by side, instead of each into
        # zeros of the whole and all of them added.
        compared, values = projected.split((2, 1), dim=2)
        values = values.squeeze(2).transpose(1, 2)
        if self.gain is not None:
            compared = rms_norm(compared.float()) * self.gain
        if rotations is not None:
            compared = rotated(compared, rotations)
        # Under autocast norms, gains and turns are in float32, and rounded here, once.
        queries, keys = compared.to(values.dtype).permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def forward(
        self, inputs: Float[Tensor, "batch tokens width"], rotations: Rotations | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Attend over a whole sequence."""
        queries, keys, values = self._queries_keys_values(inputs, rotations)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(queries, keys, values, causal=True, dropout=dropout)
        return self.project_out(mixed.transpose(1, 2).flatten(2))

    def step(
        self, inputs: Float[Tensor, "batch width"], past: Past, rotations: Rotations | None = None
    ) -> Float[Tensor, "batch width"]:
        """Attend from one new token to itself and to all those before it.

        Args:
            inputs: The new token.
            past: Of this layer.
            rotations: Of the one token.
        """
        mixed = past.attend(*self._queries_keys_values(inputs.unsqueeze(1), rotations))
        return self.project_out(mixed.flatten(1))
