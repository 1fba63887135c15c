"""Steps of a transformer in bfloat16: half the bytes of weights and cache, and matrix units.

A step of few rows reads every weight once and multiplies little with it, and then the keys and
values of all tokens before; so it costs what it reads. The matrices of the blocks are rounded once,
not at every step as autocast would; the residual stream, the norms and what heads compute stay
float32, as in training under autocast.

What is drawn differs from float32 by rounding, so in precision as in compilation (`compiled_step`):
it is part of how images are drawn (`sampling.precision`).
"""

import copy
import itertools
from typing import TypeVar

import torch
from torch import nn

from stages.nn.transformer import Transformer

__all__ = ["with_steps_in"]

Module = TypeVar("Module", bound=nn.Module)


def with_steps_in(precision: torch.dtype, module: Module) -> Module:
    """A copy whose transformers take steps in a precision; all other tensors are the module's own.

    A copy and no switch: those who serve draw from one module in several threads. A module that has
    no transformer is given back as it is.

    Args:
        precision: float32 or bfloat16.
        module: With weights in float32.
    """
    if not any(isinstance(part, Transformer) for part in module.modules()):
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for transformer in (part for part in twin.modules() if isinstance(part, Transformer)):
        transformer.step_precision = precision
        for linear in (part for part in transformer.modules() if isinstance(part, nn.Linear)):
            rounded = linear.weight.detach().to(precision)
            linear.weight = nn.Parameter(rounded, requires_grad=False)
    return twin
