"""Places as rotations of queries and keys, so that attention sees how far apart two cells are.

A query or key of a cell at (row, column) is turned, pair of numbers by pair, by angles

    row * f_i  for the first half of the pairs,    column * f_i  for the second,
    f_i = 10000^(-i / n),    i = 0 ... n - 1,    n = head_dim / 4

so that their product depends on the two places through their difference alone (RoFormer, Su et al.
2021, arXiv:2104.09864, Eq. 34; over rows and columns as in LlamaGen, Sun et al. 2024,
arXiv:2406.06525). The pairs are (x_i, x_(i + head_dim / 2)).

Queries and keys are turned by places of their own: a query by that of the cell that is to be
predicted, a key by that of the token it was read from.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Rotations", "rotated", "turns_of"]

_BASE = 10000.0
"""Longest wave over the shortest; that of RoFormer and LlamaGen."""

Turns = Float[Tensor, "2 _ tokens pairs"]
"""Cosine and sine of every angle; computed once, used in every layer."""


@dataclass(frozen=True)
class Rotations:
    """Turns of every position of a sequence; their second axis is 1 or the batch."""

    queries: Turns
    keys: Turns

    def at(self, position: int) -> "Rotations":
        """Of one position, as a sequence of one."""
        here = slice(position, position + 1)
        return Rotations(self.queries[:, :, here], self.keys[:, :, here])


def turns_of(places: Float[Tensor, "_ tokens 2"], head_dim: int) -> Turns:
    """What turns a query or key of each place.

    Args:
        places: Row and column, in cells.
        head_dim: Numbers of a query; a multiple of 4.
    """
    count = head_dim // 4
    steps = torch.arange(count, device=places.device) / count
    angles = (places.unsqueeze(-1) * _BASE**-steps).flatten(-2)
    return torch.stack([angles.cos(), angles.sin()])


def rotated(
    vectors: Float[Tensor, "batch heads tokens head_dim"], turns: Turns
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Each vector turned as its position asks; computed in float32."""
    cos, sin = turns.unsqueeze(2)
    first, second = vectors.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(vectors.dtype)
