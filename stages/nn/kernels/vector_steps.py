"""A step of a transformer as one call (steps.py), by vector registers: on any CPU.

In float32, or with weights and cache in bfloat16 and all else in float32: then half the bytes are
read, and to widen a number on the way costs next to nothing.
"""

from pathlib import Path

import torch

from stages.core.devices import resolve_precision
from stages.nn.kernels.cpp_kernels import can_compile, compiled_library
from stages.nn.kernels.steps import KernelStepper
from stages.nn.transformer import Transformer

__all__ = ["can_step_with_vectors", "vector_stepper"]

_SOURCE = Path(__file__).with_suffix(".cpp")

_WIDTH_MULTIPLE, _HEAD_MULTIPLE = 32, 16
"""Two of the longest vectors there are, and one."""


def can_step_with_vectors(transformer: Transformer) -> bool:
    """Whether the kernel should take it: of sizes it knows, on a CPU, with a compiler there.

    Not in bfloat16 where a CPU multiplies in it: PyTorch's products do so.
    """
    weight = transformer.norm.weight
    native = resolve_precision("auto", weight.device)
    return (
        weight.device.type == "cpu"
        and torch.float32 in (native, transformer.step_precision)
        and len(weight) % _WIDTH_MULTIPLE == 0
        and transformer.blocks[0].attention.head_dim % _HEAD_MULTIPLE == 0
        and can_compile()
    )


def vector_stepper(transformer: Transformer) -> KernelStepper:
    """What takes the steps of one that `can_step_with_vectors`."""
    return KernelStepper(transformer, compiled_library, _SOURCE)
