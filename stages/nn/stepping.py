"""A copy of a module made for walking: its transformers take steps rounded, packed, compiled.

    precision  the products of a step and the keys and values it keeps; bfloat16: half the bytes of
               weights and cache, and matrix units
    packing    weights arranged once for the processor (stages/nn/kernels/packed_linear.py)
    compile    a step as one call: of a kernel of our own (stages/nn/kernels/steps.py) where sizes
               and processor allow it, else compiled by PyTorch (stages/nn/compiled_step.py)

A step of few rows reads every weight once and multiplies little with it, and then the keys and
values of all tokens before; so it costs what it reads. The matrices of the blocks are rounded once,
not at every step as autocast would; the residual stream, the norms and what heads compute stay
float32, as in training under autocast.

What is drawn differs from float32, and from uncompiled steps, by rounding: both are part of how
images are drawn (`sampling.precision`, `sampling.compile`).
"""

import copy
import itertools
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from stages.core.devices import Precision, resolve_precision
from stages.nn.compiled_step import compiled_stepper
from stages.nn.kernels.packed_linear import packed
from stages.nn.kernels.tile_steps import can_step_with_tiles, tile_stepper
from stages.nn.kernels.vector_steps import can_step_with_vectors, vector_stepper
from stages.nn.transformer import Stepper, Transformer

__all__ = ["StepSettings", "with_steps"]

Module = TypeVar("Module", bound=nn.Module)

_KERNELS = ((can_step_with_tiles, tile_stepper), (can_step_with_vectors, vector_stepper))
"""The first that can is taken."""


@dataclass(frozen=True)
class StepSettings:
    """How transformers take steps; as it stands: as they were trained, in float32."""

    precision: Precision = "float32"
    compile: bool = False


def with_steps(module: Module, settings: StepSettings, device: torch.device) -> Module:
    """A copy whose transformers take steps as the settings say, and can do nothing else.

    A copy and no switch: others may walk through the module meanwhile. All tensors that stay as
    they are it has in common with the module; to make it takes as long as a few steps, so keep it.
    A module without transformers, or whose steps stay as they are, is given back itself.

    Args:
        module: With weights in float32.
        settings: Precision and compilation.
        device: Where the module is.

    Raises:
        ParamsError: If steps are to be compiled and there is no compiler.
    """
    precision = resolve_precision(settings.precision, device)
    as_they_are = precision == torch.float32 and not settings.compile
    if as_they_are or not _transformers(module):
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for transformer in _transformers(twin):
        transformer.step_precision = precision
        if settings.compile:
            transformer.stepper = _kernel_stepper(transformer)
        if transformer.stepper is not None:
            continue
        if precision != torch.float32:
            _round_matrices(transformer, precision)
        if settings.compile:
            transformer.stepper = compiled_stepper(transformer)
    return twin


def _transformers(module: nn.Module) -> list[Transformer]:
    return [part for part in module.modules() if isinstance(part, Transformer)]


def _kernel_stepper(transformer: Transformer) -> Stepper | None:
    return next((make(transformer) for can, make in _KERNELS if can(transformer)), None)


def _round_matrices(transformer: Transformer, precision: torch.dtype) -> None:
    for parent in list(transformer.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                rounded = layer.weight.detach().to(precision)
                layer.weight = nn.Parameter(rounded, requires_grad=False)
                setattr(parent, name, packed(layer))
