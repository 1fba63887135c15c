"""A decoder-only transformer: what every autoregressive prior reads its past with.

    x <- x + Attention(RMSNorm(x))         x <- x + SwiGLU(RMSNorm(x))

Pre-norm blocks (Xiong et al. 2020, arXiv:2002.04745), root-mean-square norms (Zhang & Sennrich
2019, arXiv:1910.07467), and the gated feed-forward W_down(silu(W_gate x) * W_up x) of Shazeer
2020 (arXiv:2002.05202), 8/3 of the width inside so that its weights are as many as those of the
usual four-fold one. The projections that write into the residual stream start smaller by
1/sqrt(2 layers), as in GPT-2: its variance at the start does not grow with depth.

It maps vectors to vectors: tokens, positions and classes are its caller's business. Dropout is of
the inputs, of the attention weights, and of what either layer of a block adds: a number for each.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.core.devices import autocast
from stages.nn.attention import READ_AT_ONCE, ExactPast, KeyValueCache, Past, SelfAttention
from stages.nn.kernels.tile_layers import (
    attention_layer,
    can_attend_with_tiles,
    can_train_with_tiles,
    feed_forward_layer,
)
from stages.nn.rms_norm import RMSNorm
from stages.nn.rotary import Rotations
from stages.nn.transformer_options import CausalTransformerOptions

__all__ = ["INITIAL_STD", "Block", "GatedFeedForward", "Stepper", "Transformer"]

INITIAL_STD = 0.02
"""Standard deviation of new weights (GPT-2)."""

_HIDDEN_MULTIPLE = 32
"""Feed-forward widths are multiples of this: vector units and tensor cores like it."""


class GatedFeedForward(nn.Module):
    """W_down(silu(W_gate x) * W_up x), gate and up in one matrix product."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = math.ceil(8 * width / 3 / _HIDDEN_MULTIPLE) * _HIDDEN_MULTIPLE
        self.project_in = nn.Linear(width, 2 * hidden, bias=False)
        self.project_out = nn.Linear(hidden, width, bias=False)

    def forward(self, inputs: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Apply to every row on its own."""
        gate, up = self.project_in(inputs).chunk(2, dim=-1)
        return self.project_out(F.silu(gate) * up)


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, options: CausalTransformerOptions) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(options.width)
        self.attention = SelfAttention(options)
        self.residual_dropout = nn.Dropout(options.residual_dropout)
        self.feed_forward_norm = RMSNorm(options.width)
        self.feed_forward = GatedFeedForward(options.width)
        self.feed_forward_dropout = nn.Dropout(options.feed_forward_dropout)

    def forward(
        self,
        stream: Float[Tensor, "batch tokens width"],
        added: Float[Tensor, "batch tokens width"] | None,
        rotations: Rotations | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch tokens width"]]:
        """A whole sequence.

        Args:
            stream: The residual stream.
            added: What the block before adds to it; None: there is none.
            rotations: Of every position.

        Returns:
            The stream, and what this block adds to it. A sum is made together with the norm of it.
        """
        stream, attended = self._attend(stream, added, rotations)
        stream, output = self._feed_forward(stream, self.residual_dropout(attended))
        return stream, self.feed_forward_dropout(output)

    def _attend(
        self, stream: Tensor, added: Tensor | None, rotations: Rotations | None
    ) -> tuple[Tensor, Tensor]:
        norm, layer = self.attention_norm, self.attention
        by_tiles = can_train_with_tiles(stream) and can_attend_with_tiles(stream, layer.head_dim)
        if by_tiles and layer.dropout == 0:
            weights = norm.weight, layer.project_in.weight, layer.gain
            return attention_layer(
                stream, added, *weights, rotations, layer.project_out.weight, layer.num_heads
            )
        stream = stream if added is None else stream + added
        return stream, layer(norm(stream), rotations)

    def _feed_forward(self, stream: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        norm, layer = self.feed_forward_norm, self.feed_forward
        if can_train_with_tiles(stream):
            weights = norm.weight, layer.project_in.weight, layer.project_out.weight
            return feed_forward_layer(stream, added, *weights)
        stream = stream + added
        return stream, layer(norm(stream))

    def step(
        self, inputs: Float[Tensor, "batch width"], past: Past, rotations: Rotations | None = None
    ) -> Float[Tensor, "batch width"]:
        """One token, given those before it."""
        attended = self.attention.step(self.attention_norm(inputs), past, rotations)
        stream = inputs + attended
        return stream + self.feed_forward(self.feed_forward_norm(stream))


class Transformer(nn.Module):
    """A stack of causal blocks with a final norm.

    Attributes:
        stepper: Takes steps in place of `through_blocks`; None: nobody does.
        step_precision: Of the products and the cache of steps. Both are set in copies only, by
            stages/nn/stepping.py.

    Args:
        layers: Blocks.
        options: Width, heads, dropout.
    """

    def __init__(self, layers: int, options: CausalTransformerOptions) -> None:
        super().__init__()
        self.num_heads = options.num_heads
        self.stepper: Stepper | None = None
        self.step_precision = torch.float32
        self.token_dropout = nn.Dropout(options.token_dropout)
        self.blocks = nn.ModuleList(Block(options) for _ in range(layers))
        self.norm = RMSNorm(options.width)
        for name, parameter in self.named_parameters():
            if name.endswith("project_out.weight"):
                nn.init.normal_(parameter, std=INITIAL_STD / math.sqrt(2 * layers))
            elif name.endswith("project_in.weight"):
                nn.init.normal_(parameter, std=INITIAL_STD)

    def forward(
        self, inputs: Float[Tensor, "batch tokens width"], rotations: Rotations | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Hidden state at every position, a function of the inputs up to and including it.

        Args:
            inputs: One vector for every position.
            rotations: Of every position; None: queries and keys are not turned.
        """
        stream, added = self.token_dropout(inputs), None
        for block in self.blocks:
            stream, added = block(stream, added, rotations)
        return self.norm(stream if added is None else stream + added)

    def new_cache(self, inputs: Float[Tensor, "batch width"], tokens: int) -> KeyValueCache:
        """An empty cache for up to `tokens` steps with inputs like these."""
        batch, width = inputs.shape
        # One more than is ever read: what is now a part, now the whole, would be compiled twice.
        room = -(-tokens // READ_AT_ONCE) * READ_AT_ONCE + 1
        shape = (len(self.blocks), batch, self.num_heads, room, width // self.num_heads)
        keys, values = (inputs.new_zeros(shape, dtype=self.step_precision) for _ in range(2))
        return KeyValueCache(keys, values)

    def step(
        self,
        inputs: Float[Tensor, "batch width"],
        cache: KeyValueCache,
        rotations: Rotations | None = None,
    ) -> Float[Tensor, "batch width"]:
        """Hidden state at the next position; equal to `forward` in evaluation mode.

        Args:
            inputs: The vector of the position.
            cache: Of the positions before.
            rotations: Of the whole sequence, as for `forward`.
        """
        here = None if rotations is None else rotations.at(cache.length)
        with autocast(self.step_precision, inputs.device):
            if self.stepper is None:
                pasts = [ExactPast(cache, layer) for layer in range(len(self.blocks))]
                hidden = self.through_blocks(inputs, pasts, here)
            else:
                hidden = self.stepper(inputs, cache, here)
        cache.length += 1
        return hidden

    def through_blocks(
        self,
        inputs: Float[Tensor, "batch width"],
        pasts: Sequence[Past],
        rotations: Rotations | None,
    ) -> Float[Tensor, "batch width"]:
        """One token through all blocks and the norm, given what each layer has seen."""
        stream = inputs
        for block, past in zip(self.blocks, pasts, strict=True):
            stream = block.step(stream, past, rotations)
        return self.norm(stream)


Stepper = Callable[[Tensor, KeyValueCache, Rotations | None], Tensor]
"""Hidden state of the input at the next position; the cache's length is moved by the caller."""
