"""A step of a transformer as one call of a kernel of our own.

A step of sampling reads every weight once, and the keys and values of all tokens before; it
multiplies little with either. So it costs what is read, and what is done between: compiled, a step
is some forty loops and products, which Python calls one after the other, checking what it hands on
(stages/nn/compiled_step.py). Here all of it is one function: threads read panels of packed weights,
for all rows at once, gates are computed in registers, and the cache is read as in
decode_attention.py. Every row is computed in the same order whatever the others are, and whatever
the threads.

What multiplies are the tile registers of a CPU (tile_steps.py) or its vector registers
(vector_steps.py).
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stages.nn.attention import KeyValueCache
from stages.nn.kernels.cpp_kernels import NUMBERS
from stages.nn.rotary import Rotations
from stages.nn.transformer import Block, Transformer

__all__ = ["KernelStepper"]


class KernelStepper:
    """Takes the steps of one transformer.

    Args:
        transformer: Its matrices are rounded to the precision of its steps and packed, once.
        compiled: Gives the functions of a C++ file: `compiled_library`, or what it becomes.
        source: The file of its steps.
    """

    def __init__(
        self, transformer: Transformer, compiled: Callable[..., Any], source: Path
    ) -> None:
        number = NUMBERS[transformer.step_precision]
        head_dim = transformer.blocks[0].attention.head_dim
        self._kernels = _declared(compiled(source, NUMBER=number, HEAD_DIM=head_dim))
        self._norm = transformer.norm.weight.detach()
        # Kept: the kernel is given their addresses.
        self._blocks = [
            _weights(block, self._kernels, transformer.step_precision)
            for block in transformer.blocks
        ]
        tensors = [tensor for block in self._blocks for tensor in block]
        self._addresses = (ctypes.c_void_p * len(tensors))(*map(_address, tensors))
        self._hidden = transformer.blocks[0].feed_forward.project_out.weight.shape[1]

    def __call__(
        self,
        inputs: Float[Tensor, "batch width"],
        cache: KeyValueCache,
        rotations: Rotations | None,
    ) -> Float[Tensor, "batch width"]:
        """Hidden state of the inputs at the next position, whose keys and values are kept."""
        stream = inputs.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        cosines = sines = None
        if rotations is not None:
            cosines, sines = rotations.cosines.contiguous(), rotations.sines.contiguous()
        self._kernels.step(
            *(self._addresses, _address(self._norm), _address(stream)),
            *(_address(cache.keys), _address(cache.values), _address(cosines), _address(sines)),
            *(len(self._blocks), *stream.shape, self._hidden, cache.keys.shape[3], cache.length),
            *(1 if cosines is None else len(cosines), torch.get_num_threads()),
        )
        return stream


def _weights(block: Block, kernels: Any, dtype: torch.dtype) -> list[Tensor | None]:
    """In the order of `Layer` in steps.h."""
    attention, feed_forward = block.attention, block.feed_forward
    width, hidden = feed_forward.project_out.weight.shape

    def packed(pack: Callable[..., None], weight: Tensor, rows: int) -> Tensor:
        weight = weight.detach().to(dtype).contiguous()
        found = torch.empty_like(weight)
        pack(_address(weight), _address(found), rows, weight.shape[1])
        return found

    return [
        block.attention_norm.weight.detach(),
        packed(kernels.pack, attention.project_in.weight, 3 * width),
        None if attention.gain is None else attention.gain.detach().contiguous(),
        packed(kernels.pack, attention.project_out.weight, width),
        block.feed_forward_norm.weight.detach(),
        packed(kernels.pack_gate, feed_forward.project_in.weight, hidden),
        packed(kernels.pack, feed_forward.project_out.weight, width),
    ]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _declared(kernels: Any) -> Any:
    addresses, sizes = (ctypes.c_void_p,), (ctypes.c_int64,)
    kernels.step.argtypes = [*addresses * 7, *sizes * 7, ctypes.c_int]
    kernels.pack.argtypes = kernels.pack_gate.argtypes = [*addresses * 2, *sizes * 2]
    for function in (kernels.step, kernels.pack, kernels.pack_gate):
        function.restype = None
    return kernels
