"""A step of a transformer as one call, by a kernel of our own for tile registers, in bfloat16.

A step of sampling reads every weight once, and the keys and values of all tokens before; it
multiplies little with either. So it costs what is read, and what is done between: compiled, a step
is some forty loops and products, which Python calls one after the other, checking what it hands on
(stages/nn/compiled_step.py). Here all of it is one function (tile_steps.cpp): threads read panels
of packed weights, for all rows at once, gates are computed in registers, and the cache is read as
in decode_attention.py.

Rounded where a compiled step rounds, but for what is added to the stream, which stays as it is.
Every row is computed in the same order whatever the others are, and whatever the threads.
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
from stages.nn.kernels.tiles import BLOCK, has_tiles, tile_kernels
from stages.nn.rotary import Rotations
from stages.nn.transformer import Block, Transformer

__all__ = ["TileStepper", "can_step_with_tiles"]

_SOURCE = Path(__file__).with_suffix(".cpp")


def can_step_with_tiles(transformer: Transformer) -> bool:
    """Whether the kernel can take it: in bfloat16, of sizes it knows, on a CPU that has tiles."""
    weight, width = transformer.norm.weight, len(transformer.norm.weight)
    return (
        transformer.step_precision == torch.bfloat16
        and weight.device.type == "cpu"
        and (width // transformer.num_heads) % BLOCK == 0
        and has_tiles()
    )


class TileStepper:
    """Takes the steps of one transformer.

    Args:
        transformer: One that `can_step_with_tiles`; its matrices are rounded once.
    """

    def __init__(self, transformer: Transformer) -> None:
        self._norm = transformer.norm.weight.detach()
        self._kernels = _kernels(len(self._norm) // transformer.num_heads)
        # Kept: the kernel is given their addresses.
        self._blocks = [_weights(block, self._kernels) for block in transformer.blocks]
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


def _weights(block: Block, kernels: Any) -> list[Tensor | None]:
    """In the order of `Layer` in tile_steps.cpp."""
    attention, feed_forward = block.attention, block.feed_forward
    width, hidden = feed_forward.project_out.weight.shape

    def packed(pack: Callable[..., None], weight: Tensor, rows: int) -> Tensor:
        weight = weight.detach().bfloat16().contiguous()
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
def _kernels(head_dim: int) -> Any:
    kernels = tile_kernels(_SOURCE, NUMBER="c10::BFloat16", HEAD_DIM=head_dim)
    addresses, sizes = (ctypes.c_void_p,), (ctypes.c_int64,)
    kernels.step.argtypes = [*addresses * 7, *sizes * 7, ctypes.c_int]
    kernels.pack.argtypes = kernels.pack_gate.argtypes = [*addresses * 2, *sizes * 2]
    for function in (kernels.step, kernels.pack, kernels.pack_gate):
        function.restype = None
    return kernels
