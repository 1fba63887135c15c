"""Two stacks of gated convolutions that together see all of the past and nothing else.

    vertical     at row i: the rows above; full rows, so there is no blind spot
    horizontal   at cell (i, j): what is left of it in row i, and the vertical stack at (i, j)

    y = tanh(f + c_f) * sigmoid(g + c_g),    f, g two halves of a convolution, c of the class

(Gated PixelCNN, van den Oord et al. 2016, arXiv:1606.05328, Eqs. 2 and 4, Figure 2.) A layer of the
vertical stack is a k x k convolution over the rows up to its own; one of the horizontal stack a
1 x k convolution over the cells up to its own, plus a 1 x 1 convolution of the vertical one before
its gate, and it adds its result to its input by another 1 x 1 convolution.

The inputs are moved instead of masked: the vertical stack reads the cells one row lower, the
horizontal stack one cell further right. Then row i and cell j of what it reads are of the past, no
kernel holds weights that are never used, and a window over "up to here" is a plain convolution of
a map with zeros before its border. Sampling fills those maps as cells become known and computes
each row and each cell once (`StackCache`).

Differs: half the kernel's reach, not all of it, above and to the left, as there; weights start so
that activations keep their scale, and the horizontal stack starts as the identity.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.convolution import LINEAR, start_weights

__all__ = ["GatedStacks", "StackCache"]

Maps = Float[Tensor, "batch width rows columns"]
Padded = Float[Tensor, "batch width padded_rows padded_columns"]
RowMaps = Float[Tensor, "batch width 1 columns"]
Cell = Float[Tensor, "batch width 1 1"]
Told = Float[Tensor, "batch gates 1 1"]

_AFTER_GATE = 2.94
"""Gain behind a gate: one over the root mean square of tanh(f) sigmoid(g), f, g ~ N(0, 1)."""


def _gated(maps: Float[Tensor, "batch gates rows columns"]) -> Maps:
    values, gates = maps.chunk(2, dim=1)
    return torch.tanh(values) * torch.sigmoid(gates)


class _GatedLayer(nn.Module):
    """One layer of both stacks; its convolutions take maps that are padded already."""

    def __init__(self, width: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.reach = kernel_size // 2
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel_size))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.back = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout)
        for layer, gain in (
            (self.vertical, _AFTER_GATE),
            (self.horizontal, LINEAR),
            (self.across, LINEAR),
            (self.back, 0.0),
        ):
            start_weights(layer.weight, layer.weight[0].numel(), gain)
            nn.init.zeros_(layer.bias)

    def pad_vertical(self, maps: Maps) -> Padded:
        """Zeros above and at both sides."""
        return F.pad(maps, (self.reach, self.reach, self.reach, 0))

    def pad_horizontal(self, maps: Maps) -> Padded:
        """Zeros on the left."""
        return F.pad(maps, (self.reach, 0, 0, 0))

    def down(self, padded: Padded, told: Told) -> tuple[Maps, Tensor]:
        """The next maps of the vertical stack, and what they say to the horizontal one."""
        seen = self.vertical(padded)
        return _gated(seen + told), self.across(seen)

    def along(self, padded: Padded, here: Maps, above: Tensor, told: Told) -> Maps:
        """The next maps of the horizontal stack; `here` are its maps without the padding."""
        seen = self.horizontal(padded) + above + told
        return here + self.back(self.dropout(_gated(seen)))


class GatedStacks(nn.Module):
    """Both stacks, from embedded cells to a hidden state of every cell.

    Args:
        layers: Of each stack.
        width: Maps of each stack.
        kernel_size: k, odd.
        dropout: Of the embedded cells, and of what a layer adds to the horizontal stack.
    """

    def __init__(self, layers: int, width: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_GatedLayer(width, kernel_size, dropout) for _ in range(layers))

    def forward(self, embedded: Maps, told: Float[Tensor, "batch layers stacks gates"]) -> Maps:
        """The state that predicts each cell, a function of the cells before it in raster order.

        Args:
            embedded: Every cell, numbers of mean square 1; the last one is not looked at.
            told: What each layer of both stacks is told of the class, in front of its gates.
        """
        embedded = self.dropout(embedded)
        down = F.pad(embedded, (0, 0, 1, 0))[:, :, :-1]
        along = F.pad(embedded, (1, 0, 0, 0))[:, :, :, :-1]
        for index, layer in enumerate(self.layers):
            of_vertical, of_horizontal = told[:, index, :, :, None, None].unbind(dim=1)
            down, above = layer.down(layer.pad_vertical(down), of_vertical)
            along = layer.along(layer.pad_horizontal(along), along, above, of_horizontal)
        return along

    def new_cache(
        self, told: Float[Tensor, "batch layers stacks gates"], rows: int, columns: int
    ) -> "StackCache":
        """Nothing known yet of a grid."""
        return StackCache(self, told, rows, columns)


@dataclass
class StackCache:
    """The padded maps of every layer, filled row by row and cell by cell.

    Of the vertical stack all rows are kept, of the horizontal one the row at hand.
    """

    stacks: GatedStacks
    told: Float[Tensor, "batch layers stacks gates"]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        """Allocate once."""
        self.down = [layer.pad_vertical(self._zeros(self.rows)) for layer in self.stacks.layers]
        self.along: list[Tensor] = []
        self.above: list[Tensor] = []

    def start_row(self, row: int, last: RowMaps | None) -> None:
        """Go on to a row.

        Args:
            row: Which; each after the one before.
            last: The embedded cells of the row before; None: this is the first.
        """
        maps = self._zeros(1) if last is None else last
        self.above = []
        for index, layer in enumerate(self.stacks.layers):
            reach = layer.reach
            self.down[index][:, :, reach + row, reach : reach + self.columns] = maps[:, :, 0]
            window = self.down[index][:, :, row : row + reach + 1]
            maps, above = layer.down(window, self.told[:, index, 0, :, None, None])
            self.above.append(above)
        self.along = [layer.pad_horizontal(self._zeros(1)) for layer in self.stacks.layers]

    def cell(self, column: int, last: Cell | None) -> Float[Tensor, "batch width"]:
        """The state that predicts a cell of the row at hand.

        Args:
            column: Which; each after the one before.
            last: The embedded cell on its left; None: this is the first.
        """
        here = self._zeros(1)[:, :, :, :1] if last is None else last
        for index, layer in enumerate(self.stacks.layers):
            self.along[index][:, :, :, layer.reach + column] = here[:, :, :, 0]
            window = self.along[index][:, :, :, column : column + layer.reach + 1]
            above = self.above[index][:, :, :, column : column + 1]
            here = layer.along(window, here, above, self.told[:, index, 1, :, None, None])
        return here[:, :, 0, 0]

    def _zeros(self, rows: int) -> Maps:
        return self.told.new_zeros(len(self.told), self.stacks.width, rows, self.columns)
