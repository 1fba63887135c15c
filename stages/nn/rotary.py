"""Places as rotations of queries and keys, so that attention sees how far apart two cells are.

A query or key of a cell at (row, column) is turned, pair of numbers by pair, by angles

    row * f_i  for the first half of the pairs,    column * f_i  for the second,
    f_i = 10000^(-i / n),    i = 0 ... n - 1,    n = head_dim / 4

so that their product depends on the two places through their difference alone (RoFormer, Su et al.
2021, arXiv:2104.09864, Eq. 34; over rows and columns as in LlamaGen, Sun et al. 2024,
arXiv:2406.06525). The pairs are (x_i, x_(i + head_dim / 2)).

Queries and keys are turned together, by places of their own: a query by that of the cell that is to
be predicted, a key by that of the token it was read from.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Rotations", "Turns", "rotated"]

_BASE = 10000.0
"""Longest wave over the shortest; that of RoFormer and LlamaGen."""

Places = Float[Tensor, "_ tokens 2"]
Turns = Float[Tensor, "_ tokens 2 1 pairs"]


@dataclass(frozen=True)
class Rotations:
    """Turns of every position of a sequence, for its query and for its key.

    Made once, used in every layer. The first axis is 1 or the batch.
    """

    cosines: Turns
    sines: Turns

    @classmethod
    def of(cls, queries: Places, keys: Places, head_dim: int) -> "Rotations":
        """What turns queries and keys of these places.

        Args:
            queries: Row and column of each, in cells.
            keys: The same.
            head_dim: Numbers of a query; a multiple of 4.
        """
        count = head_dim // 4
        steps = torch.arange(count, device=queries.device) / count
        places = torch.stack([queries, keys], dim=2).unsqueeze(-1)
        angles = (places * _BASE**-steps).flatten(-2).unsqueeze(3)
        return cls(angles.cos(), angles.sin())

    def at(self, position: int) -> "Rotations":
        """Of one position, as a sequence of one."""
        here = slice(position, position + 1)
        return Rotations(self.cosines[:, here], self.sines[:, here])


def rotated(
    compared: Float[Tensor, "batch tokens 2 heads head_dim"], rotations: Rotations
) -> Float[Tensor, "batch tokens 2 heads head_dim"]:
    """Each query (first) and key (second) turned as its position asks; computed in float32."""
    cosines, sines = rotations.cosines, rotations.sines
    first, second = compared.float().chunk(2, dim=-1)
    turned = [
        torch.addcmul(first * cosines, second, sines, value=-1),
        torch.addcmul(second * cosines, first, sines),
    ]
    return torch.cat(turned, dim=-1).to(compared.dtype)
