"""Products of the few rows of a step, in bfloat16, by kernels of our own for tile registers.

    y = x W^T                     y = (silu(g) * u) W_out^T, g and u the halves of x W_in^T

A step of sampling reads every weight once, for as many rows as images are drawn together. oneDNN
takes twice as long for one row or 16 as to read weights takes (the products of 10 million on two
cores: 1.4 and 1.8 ms, here 0.8 and 0.9), and 2.8 ms for 64 rows, here 2.2: tile_steps.cpp reads
panels of a packed weight one after the other, for all rows at once, and computes gates in
registers.

Every row is computed in the same order whatever the others are. Layers that these kernels cannot
take stay as they are.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.kernels.operators import operator
from stages.nn.kernels.tiles import BLOCK, has_tiles, tile_kernels

__all__ = ["StepFeedForward", "StepLinear", "can_step_with_tiles"]

_SOURCE = Path(__file__).with_suffix(".cpp")

Rows = Float[Tensor, "*rows width"]


def can_step_with_tiles(*layers: nn.Linear) -> bool:
    """Whether the kernels can take these: in bfloat16, without bias, on a CPU that has tiles."""
    return has_tiles() and all(
        layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.bfloat16
        and layer.bias is None
        and all(size % BLOCK == 0 for size in layer.weight.shape)
        for layer in layers
    )


class StepLinear(nn.Module):
    """What a linear layer does, without gradients.

    Args:
        linear: One that `can_step_with_tiles`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # Neither parameter nor buffer: nothing can be done with it but this product.
        self.packed = _packed("pack", linear.weight, *linear.weight.shape)

    def forward(self, input: Rows) -> Float[Tensor, "*rows out"]:
        """Map every row; the result is in bfloat16, whatever the input."""
        return _linear(input.bfloat16(), self.packed)


class StepFeedForward(nn.Module):
    """What a gated feed-forward layer does, without gradients.

    Args:
        project_in: To gates, and what they let through.
        project_out: From their product; both `can_step_with_tiles`.
    """

    def __init__(self, project_in: nn.Linear, project_out: nn.Linear) -> None:
        super().__init__()
        width, hidden = project_out.weight.shape
        self.packed_in = _packed("pack_gate", project_in.weight, hidden, width)
        self.packed_out = _packed("pack", project_out.weight, width, hidden)

    def forward(self, inputs: Rows) -> Rows:
        """Map every row; the result is in bfloat16, whatever the input."""
        return _feed_forward(inputs.bfloat16(), self.packed_in, self.packed_out)


def _packed(name: str, weight: Tensor, rows: int, columns: int) -> Tensor:
    weight = weight.detach().contiguous()
    found = torch.empty_like(weight)
    _call(name, weight, found, sizes=(rows, columns))
    return found


def _make_linear(input: Tensor, packed: Tensor) -> Tensor:
    input = input.contiguous()
    output = _empty_linear(input, packed)
    out, width = packed.shape
    _call("linear", input, packed, output, sizes=(input.numel() // width, width, out), threads=True)
    return output


def _empty_linear(input: Tensor, packed: Tensor) -> Tensor:
    return input.new_empty(*input.shape[:-1], len(packed))


def _make_feed_forward(input: Tensor, packed_in: Tensor, packed_out: Tensor) -> Tensor:
    input = input.contiguous()
    output = _empty_feed_forward(input, packed_in, packed_out)
    width, hidden = packed_out.shape
    sizes = input.numel() // width, width, hidden
    _call("feed_forward", input, packed_in, packed_out, output, sizes=sizes, threads=True)
    return output


def _empty_feed_forward(input: Tensor, packed_in: Tensor, packed_out: Tensor) -> Tensor:
    return input.new_empty(input.shape)


def _call(name: str, *dense: Tensor, sizes: tuple[int, ...], threads: bool = False) -> None:
    addresses = [ctypes.c_void_p(each.data_ptr()) for each in dense]
    numbers = [ctypes.c_int64(size) for size in sizes]
    last = [ctypes.c_int(torch.get_num_threads())] if threads else []
    getattr(_kernels(), name)(*addresses, *numbers, *last)


@functools.cache
def _kernels() -> Any:
    return tile_kernels(_SOURCE)


_linear = operator(
    "tile_step_linear(Tensor input, Tensor packed) -> Tensor", _empty_linear, CPU=_make_linear
)
_feed_forward = operator(
    "tile_step_feed_forward(Tensor input, Tensor packed_in, Tensor packed_out) -> Tensor",
    _empty_feed_forward,
    CPU=_make_feed_forward,
)
