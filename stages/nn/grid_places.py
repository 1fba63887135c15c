"""What a network learns of the place of every token: a vector per row, per column, and per grid.

place(i, j) = row_i + column_j                   one grid
place(part p, row i, column j)                   several grids in a row: stages/nn/code_grids.py
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.code_grids import place_embeddings
from stages.nn.transformer import INITIAL_STD

__all__ = ["GridPlaces"]


class GridPlaces(nn.Module):
    """Learned places of the cells of one grid, or of several that stand end to end.

    Args:
        grids: Rows and columns of each.
        width: Size of a place's vector.
    """

    def __init__(self, grids: tuple[tuple[int, int], ...], width: int) -> None:
        super().__init__()
        self.grids = grids
        rows, columns = (max(sizes) for sizes in zip(*grids, strict=True))
        self.rows = nn.Parameter(torch.empty(rows, 1, width))
        self.columns = nn.Parameter(torch.empty(1, columns, width))
        self.parts = nn.Parameter(torch.empty(len(grids), width)) if len(grids) > 1 else None
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=INITIAL_STD)

    def forward(self) -> Float[Tensor, "tokens width"]:
        """All places, grid after grid, each in raster order."""
        if self.parts is None:
            return (self.rows + self.columns).flatten(0, 1)
        return place_embeddings(self.rows, self.columns, self.parts, self.grids)
