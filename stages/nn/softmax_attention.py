"""softmax(Q K^T / sqrt(d)) V of whole sequences, in the way that is fastest to train with.

    O = P V,    P = softmax(S),    S = Q K^T / sqrt(d), -inf where a position may not look

PyTorch's fused kernel never holds S and P, which is what long sequences need (FlashAttention, Dao
et al. 2022, arXiv:2205.14135). On a CPU its backward pass multiplies small blocks one after the
other: in bfloat16 that took 30 ms for 192 heads of 64 tokens, where the five products of whole
matrices, with matrix units, took 6. So short sequences that want gradients in bfloat16 on a CPU are
computed as it stands above. Of 512 tokens it still took less time (53 ms against 74, 48 heads), but
P, which the backward pass needs, then takes 512 KB a head. Compiled trainings have a kernel of our
own instead where it can be (stages/nn/kernels/tile_attention.py).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stages.nn.kernels.tile_attention import attend_with_tiles, can_attend_with_tiles

__all__ = ["attend"]

_SHORT = 256
"""Tokens up to which P, 128 KB a head at most, is held."""

PerHead = Float[Tensor, "batch heads tokens head_dim"]


def attend(
    queries: PerHead, keys: PerHead, values: PerHead, *, causal: bool, dropout: float = 0.0
) -> PerHead:
    """Mix the values of all positions, or of those up to each one.

    Args:
        queries: All three of one dtype.
        keys: The same shape.
        values: The same shape.
        causal: Whether position t sees positions <= t only.
        dropout: Of P.
    """
    if dropout == 0 and can_attend_with_tiles(queries):
        return attend_with_tiles(queries, keys, values, causal=causal)
    if _whole_matrices_are_faster(queries):
        return _by_whole_matrices(queries, keys, values, causal, dropout)
    return F.scaled_dot_product_attention(
        queries, keys, values, dropout_p=dropout, is_causal=causal
    )


def _whole_matrices_are_faster(queries: PerHead) -> bool:
    return (
        queries.device.type == "cpu"
        and queries.dtype == torch.bfloat16
        and queries.requires_grad
        and queries.shape[2] <= _SHORT
    )


def _by_whole_matrices(
    queries: PerHead, keys: PerHead, values: PerHead, causal: bool, dropout: float
) -> PerHead:
    heads = queries.shape[:2]
    # Scaled before the product: as many numbers as queries have, not as S has.
    scaled = (queries * queries.shape[-1] ** -0.5).flatten(0, 1)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    if causal:
        # Added by the product, not behind it: S is then passed over by the softmax alone.
        tokens = scaled.shape[1]
        future = scaled.new_full((tokens, tokens), -torch.inf).triu(1)
        logits = torch.baddbmm(future.expand(len(scaled), -1, -1), scaled, keys.mT)
    else:
        logits = scaled @ keys.mT
    return (F.dropout(logits.softmax(dim=-1), dropout) @ values).unflatten(0, heads)
