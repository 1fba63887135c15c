"""The step of sampling as one compiled call: the small operations between matrix products merged.

A step of one token is a matrix product after another and some twenty small operations in every
layer; on few rows these take as long as the products. `torch.compile` makes a few loops of them.
It compiles once per batch size, for any number of tokens: a step is given the cache in lengths that
are multiples of `READ_AT_ONCE`, a dimension of the compiled code that may vary. Attention to it is
a kernel of its own (stages/nn/kernels/decode_attention.py) or, where that cannot be, PyTorch's,
which reads all of the length and gives what lies beyond the new token weight 0.

Equal to the step as it stands within rounding. Products on one row, and sums in another order,
differ in the last bits, and so will an image now and then: whether to compile is part of how images
are drawn (`sampling.compile`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stages.core.errors import ParamsError
from stages.nn.attention import READ_AT_ONCE, KeyValueCache, OneToken, Past
from stages.nn.kernels.cpp_kernels import has_compiler
from stages.nn.kernels.decode_attention import attend_to_cache, can_attend_to_cache
from stages.nn.rotary import Rotations
from stages.nn.transformer import Stepper, Transformer

__all__ = ["compiled_stepper"]

_MOST_SIZES = 32
"""Sizes of batches, over all transformers of a process: guided and not, whole and last ones."""

Layer = Float[Tensor, "batch heads seen head_dim"]


def compiled_stepper(transformer: Transformer) -> Stepper:
    """What takes the steps of a transformer by compiled calls.

    Raises:
        ParamsError: If there is no compiler.
    """
    _require_compiler()
    return functools.partial(_take_step, transformer)


@dataclass(frozen=True)
class _PaddedPast(Past):
    """The first tokens of a layer's cache, some of them perhaps not filled yet."""

    keys: Layer
    values: Layer
    now: Int[Tensor, "1"]
    places: Int[Tensor, " seen"]
    """0, 1, ...: the numbers of the tokens that are read."""

    def attend(self, queries: OneToken, keys: OneToken, values: OneToken) -> OneToken:
        """See `stages.nn.attention.Past`."""
        self.keys.index_copy_(2, self.now, keys)
        self.values.index_copy_(2, self.now, values)
        seen = (self.places <= self.now)[None]
        return F.scaled_dot_product_attention(queries, self.keys, self.values, attn_mask=seen)


class _KernelPast(_PaddedPast):
    """The same for the kernel, which reads no more than is filled."""

    def attend(self, queries: OneToken, keys: OneToken, values: OneToken) -> OneToken:
        """See `stages.nn.attention.Past`."""
        return attend_to_cache(queries, keys, values, self.keys, self.values, self.now)


def _step(
    transformer: Transformer,
    inputs: Float[Tensor, "batch width"],
    kind: type[_PaddedPast],
    keys: tuple[Layer, ...],
    values: tuple[Layer, ...],
    now: Int[Tensor, "1"],
    places: Int[Tensor, " seen"],
    rotations: Rotations | None,
) -> Float[Tensor, "batch width"]:
    pasts = [kind(*layer, now, places) for layer in zip(keys, values, strict=True)]
    return transformer.through_blocks(inputs, pasts, rotations)


@functools.cache
def _compiled_step() -> Callable[..., Tensor]:
    """Not at import: that takes seconds. What it compiles, it keeps for each transformer."""
    return torch.compile(_step, fullgraph=True, dynamic=False)


def _take_step(
    transformer: Transformer, inputs: Tensor, cache: KeyValueCache, rotations: Rotations | None
) -> Tensor:
    seen = (cache.length // READ_AT_ONCE + 1) * READ_AT_ONCE
    places = torch.arange(seen, device=inputs.device)
    keys, values = (all[:, :, :, :seen].unbind(0) for all in (cache.keys, cache.values))
    for varying, axis in ((places, 0), *((layer, 2) for layer in (*keys, *values))):
        torch._dynamo.mark_dynamic(varying, axis)
    now = places[cache.length : cache.length + 1]
    kind = _KernelPast if can_attend_to_cache(cache.keys) else _PaddedPast
    with torch._dynamo.config.patch(recompile_limit=_MOST_SIZES):
        return _compiled_step()(transformer, inputs, kind, keys, values, now, places, rotations)


def _require_compiler() -> None:
    if not has_compiler():
        raise ParamsError(
            "sampling.compile: needs a C++ compiler, and none was found; install one (g++, or name "
            "it in the environment variable CXX), or set sampling.compile: false"
        )
