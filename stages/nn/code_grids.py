"""Several grids of codes in one row, and the places of their cells.

A stack of residual codes, or a coarse grid and a fine one, is stored as one row of codes: the grids
end to end, each in raster order. `parts` gives their shapes, ((rows, columns), ...), in that order.

Cells at the same place of the image share what a prior has learned of that place: the table of row
positions belongs to the grid with most rows, and a row of a coarser grid, which covers several of
them, has their mean; so with columns.

    place(part p, row i, column j) = mean over rows covered + mean over columns covered + part_p
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["GridShapes", "grids_of_row", "place_embeddings", "row_of_grids"]

GridShapes = tuple[tuple[int, int], ...]
# Axes without a name: grids of one list differ in shape.
Grids = list[Int[Tensor, "batch _ _"]]


def grids_of_row(row: Int[Tensor, "batch 1 tokens"], parts: GridShapes) -> Grids:
    """The grids that stand end to end in a row; the inverse of `row_of_grids`."""
    sizes = [rows * columns for rows, columns in parts]
    pieces = row.squeeze(1).split(sizes, dim=1)
    return [piece.unflatten(1, part) for piece, part in zip(pieces, parts, strict=True)]


def row_of_grids(grids: Grids) -> Int[Tensor, "batch 1 tokens"]:
    """Grids end to end in one row, each in raster order."""
    return torch.cat([grid.flatten(1) for grid in grids], dim=1).unsqueeze(1)


def place_embeddings(
    rows: Float[Tensor, "most_rows 1 width"],
    columns: Float[Tensor, "1 most_columns width"],
    of_part: Float[Tensor, "parts width"],
    parts: GridShapes,
) -> Float[Tensor, "tokens width"]:
    """What is learned of the place of every code of a row.

    Args:
        rows: One vector per row of the grid with most rows.
        columns: One vector per column of the grid with most columns.
        of_part: One vector per part.
        parts: Shapes of the grids.
    """
    places = [
        (_mean_covered(rows[:, 0], height)[:, None] + _mean_covered(columns[0], width)).flatten(
            0, 1
        )
        for height, width in parts
    ]
    return torch.cat([place + part for place, part in zip(places, of_part, strict=True)])


def _mean_covered(vectors: Float[Tensor, "most width"], count: int) -> Float[Tensor, "count width"]:
    """The vectors of `count` equal stretches, each the mean of those it covers."""
    each = torch.eye(len(vectors), device=vectors.device, dtype=vectors.dtype)
    shares = F.adaptive_avg_pool1d(each, count).T
    # The gradient of pooling itself is added in any order on a GPU.
    return (shares.unsqueeze(-1) * vectors).sum(dim=1)
