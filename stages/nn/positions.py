"""How a transformer is told which cell it predicts next, and which one it has just read.

Position t of an autoregressive transformer reads token t - 1 (the class at t = 0) and predicts
token t. Two ways to say where that is:

    learned   a vector for each row and each column of the grid is added to the input
    rotary    queries and keys are turned by their places (stages/nn/rotary.py); nothing is added

In raster order the cell to be predicted tells the one just read. In any other order it does not:
then both are told (RAR, Yu et al. 2024, arXiv:2411.00776, section 3.2, "target-aware positional
embedding"), each by vectors of its own. Rotations tell both as they are.

Rotary places count from 1 in cells of the grid with most rows and columns, and those of a coarser
grid are the centres of its cells; the class stands at (0, 0), so that a query finds its absolute
place in how it meets the class. Where a row holds several grids (stages/nn/code_grids.py), which of
them comes as a learned vector in either way.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.nn.code_grids import GridShapes, place_embeddings
from stages.nn.embedding import embedding
from stages.nn.rotary import Rotations, Turns
from stages.nn.transformer import INITIAL_STD

__all__ = ["LearnedPositions", "Order", "Positions", "RotaryPositions"]

Order = Int[Tensor, "batch tokens"]
"""The token that comes first, second, ..., by its number in raster order."""
Told = Float[Tensor, "_ tokens width"]


class Positions(nn.Module, ABC):
    """Places of a sequence of tokens, in raster order or, image by image, in another."""

    @abstractmethod
    def told(self, order: Order | None) -> Told:
        """What is added to the inputs; the first axis is 1 for raster order (None)."""

    @abstractmethod
    def rotations(self, order: Order | None) -> Rotations | None:
        """How queries and keys are turned; None: they are not."""


class LearnedPositions(Positions):
    """Vectors of rows and columns.

    Args:
        parts: Shapes of the grids of a row; usually one.
        width: Of the vectors.
        any_order: Whether the place of the token just read is told as well.
    """

    def __init__(self, parts: GridShapes, width: int, *, any_order: bool) -> None:
        super().__init__()
        self.predicted = _PlaceTable(parts, width)
        self.read = _PlaceTable(parts, width) if any_order else None

    def told(self, order: Order | None) -> Told:
        """Vectors of the cell to be predicted and, for any order, of the one just read."""
        told = _in_order(self.predicted(), order)
        if self.read is not None:
            read = _in_order(self.read(), order)[:, :-1]
            told = told + torch.cat([torch.zeros_like(told[:, :1]), read], dim=1)
        return told

    def rotations(self, order: Order | None) -> None:
        """None."""
        return None


class RotaryPositions(Positions):
    """Rotations by row and column, and a vector for each grid where there are several.

    Args:
        parts: Shapes of the grids of a row; usually one.
        width: Of the vectors.
        head_dim: Of queries and keys; a multiple of 4.
    """

    cosines: Turns
    sines: Turns
    part_of: Int[Tensor, " tokens"]

    def __init__(self, parts: GridShapes, width: int, head_dim: int) -> None:
        super().__init__()
        assert head_dim % 4 == 0, "options ask for it"
        self.part = _parameter(len(parts), width) if len(parts) > 1 else None
        sizes = torch.tensor([rows * columns for rows, columns in parts])
        predicted = _places(parts).unsqueeze(0)
        read = torch.cat([torch.zeros_like(predicted[:, :1]), predicted[:, :-1]], dim=1)
        raster = Rotations.of(predicted, read, head_dim)
        # Kept and not made when asked for: a compiler would put cosines into the loops of every
        # layer, forward and backward, which took a third of a training step of 256 tokens.
        self.register_buffer("cosines", raster.cosines, persistent=False)
        self.register_buffer("sines", raster.sines, persistent=False)
        self.register_buffer(
            "part_of", torch.repeat_interleave(torch.arange(len(parts)), sizes), persistent=False
        )

    def told(self, order: Order | None) -> Told:
        """Which grid the cell to be predicted is of; zeros where there is one."""
        if self.part is None:
            return self.cosines.new_zeros(1, 1, 1).expand(1, len(self.part_of), 1)
        return _in_order(self.part[self.part_of], order)

    def rotations(self, order: Order | None) -> Rotations:
        """Queries by the cell to be predicted, keys by the one just read."""
        if order is None:
            return Rotations(self.cosines, self.sines)
        return Rotations(*(_turns_in_order(turns, order) for turns in (self.cosines, self.sines)))


class _PlaceTable(nn.Module):
    """A learned vector for every token: row and column added, and the grid where there are more."""

    def __init__(self, parts: GridShapes, width: int) -> None:
        super().__init__()
        self.parts = parts
        rows, columns = (max(sizes) for sizes in zip(*parts, strict=True))
        self.row = _parameter(rows, 1, width)
        self.column = _parameter(1, columns, width)
        self.part = _parameter(len(parts), width) if len(parts) > 1 else None

    def forward(self) -> Float[Tensor, "tokens width"]:
        """In raster order."""
        if self.part is None:
            return (self.row + self.column).flatten(0, 1)
        return place_embeddings(self.row, self.column, self.part, self.parts)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=INITIAL_STD))


def _in_order(
    by_token: Float[Tensor, "tokens numbers"], order: Order | None
) -> Float[Tensor, "_ tokens numbers"]:
    return by_token.unsqueeze(0) if order is None else embedding(order, by_token)


def _turns_in_order(raster: Turns, order: Order) -> Turns:
    predicted = raster[0, order, :1]
    origin = raster[:, :1, 1:].expand(len(order), -1, -1, -1, -1)
    read = torch.cat([origin, predicted[:, :-1]], dim=1)
    return torch.cat([predicted, read], dim=2)


def _places(parts: GridShapes) -> Float[Tensor, "tokens 2"]:
    """Row and column of every token, in cells of the finest grid, the first cell at (1, 1)."""
    most = [max(sizes) for sizes in zip(*parts, strict=True)]
    grids = []
    for part in parts:
        axes = [
            (torch.arange(size) + 0.5) * (largest / size) + 0.5
            for size, largest in zip(part, most, strict=True)
        ]
        grids.append(torch.cartesian_prod(*axes))
    return torch.cat(grids)
