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
from collections.abc import Callable
from pathlib import Path

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
    _kernel(name, 2, 2)(weight.data_ptr(), found.data_ptr(), rows, columns)
    return found


def _make_linear(input: Tensor, packed: Tensor) -> Tensor:
    input, (out, width) = input.contiguous(), packed.shape
    output = input.new_empty(*input.shape[:-1], out)
    _kernel("linear", 3, 4)(
        *(input.data_ptr(), packed.data_ptr(), output.data_ptr()),
        *(input.numel() // width, width, out, torch.get_num_threads()),
    )
    return output


def _make_feed_forward(input: Tensor, packed_in: Tensor, packed_out: Tensor) -> Tensor:
    input, (width, hidden) = input.contiguous(), packed_out.shape
    output = torch.empty_like(input)
    _kernel("feed_forward", 4, 4)(
        *(input.data_ptr(), packed_in.data_ptr(), packed_out.data_ptr(), output.data_ptr()),
        *(input.numel() // width, width, hidden, torch.get_num_threads()),
    )
    return output


@functools.cache
def _kernel(name: str, addresses: int, numbers: int) -> Callable[..., None]:
    """A function of so many addresses, then so many numbers; called some twenty times a step."""
    found = getattr(tile_kernels(_SOURCE), name)
    found.argtypes = [*(ctypes.c_void_p,) * addresses, *(ctypes.c_int64,) * numbers]
    found.restype = None
    return found


_linear = operator(
    "tile_step_linear(Tensor input, Tensor packed) -> Tensor",
    lambda input, packed: input.new_empty(*input.shape[:-1], len(packed)),
    CPU=_make_linear,
)
_feed_forward = operator(
    "tile_step_feed_forward(Tensor input, Tensor packed_in, Tensor packed_out) -> Tensor",
    lambda input, packed_in, packed_out: input.new_empty(input.shape),
    CPU=_make_feed_forward,
)
