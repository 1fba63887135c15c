"""A transformer in which every position sees every other.

    x <- x + Attention(RMSNorm(x))         x <- x + W2 gelu(W1 RMSNorm(x))

Pre-norm blocks with a feed-forward part of four times the width, as in the Vision Transformer
(Dosovitskiy et al. 2020, arXiv:2010.11929, Eqs. 2 and 3). Queries and keys are normalised per head,
which keeps the attention logits bounded (Dehghani et al. 2023, arXiv:2302.05442).

Differs: root-mean-square norms; both branches start at zero (Fixup, Zhang et al. 2019), so that a
stack of any depth starts as the identity and needs little warm-up; dropout, where it is asked for,
of the inputs and the residual branches. The blocks are not those of stages/nn/transformer.py, which
are causal and keep a cache.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.convolution import LINEAR, start_weights
from stages.nn.rms_norm import RMSNorm, rms_norm
from stages.nn.softmax_attention import attend

__all__ = ["BidirectionalTransformer"]

Stream = Float[Tensor, "batch tokens width"]

_HIDDEN_PER_WIDTH = 4


class BidirectionalTransformer(nn.Module):
    """A stack of blocks with a final norm.

    It maps vectors to vectors; where a token stands is its caller's business.

    Args:
        layers: Blocks.
        width: Size of the residual stream; a multiple of `num_heads`.
        num_heads: Attention heads.
        dropout: Probability of dropping numbers of the inputs and of every residual branch.
    """

    def __init__(self, layers: int, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_Block(width, num_heads, dropout) for _ in range(layers)))
        self.norm = RMSNorm(width)

    def forward(self, inputs: Stream) -> Stream:
        """The state of every position, of mean square one."""
        return self.norm(self.blocks(self.dropout(inputs)))


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attention_norm = RMSNorm(width)
        self.attention = _Attention(width, num_heads)
        self.feed_forward_norm = RMSNorm(width)
        self.feed_forward = nn.Sequential(
            _linear(width, _HIDDEN_PER_WIDTH * width, LINEAR),
            nn.GELU(),
            _linear(_HIDDEN_PER_WIDTH * width, width, 0.0),
        )

    def forward(self, inputs: Stream) -> Stream:
        stream = inputs + self.dropout(self.attention(self.attention_norm(inputs)))
        return stream + self.dropout(self.feed_forward(self.feed_forward_norm(stream)))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project_in = _linear(width, 3 * width, LINEAR)
        self.query_gain = nn.Parameter(torch.ones(width // num_heads))
        self.key_gain = nn.Parameter(torch.ones(width // num_heads))
        self.project_out = _linear(width, width, 0.0)

    def forward(self, inputs: Stream) -> Stream:
        projected = self.project_in(inputs).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        # Under autocast norms and gains are in float32, and rounded once.
        mixed = attend(
            rms_norm(queries.float(), self.query_gain).to(values.dtype),
            rms_norm(keys.float(), self.key_gain).to(values.dtype),
            values,
            causal=False,
        )
        return self.project_out(mixed.transpose(1, 2).flatten(2))


def _linear(in_width: int, out_width: int, gain: float) -> nn.Linear:
    layer = nn.Linear(in_width, out_width)
    start_weights(layer.weight, in_width, gain)
    nn.init.zeros_(layer.bias)
    return layer
