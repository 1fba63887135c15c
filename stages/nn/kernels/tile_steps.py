"""A step of a transformer as one call (steps.py), by the tile registers of a CPU, in bfloat16.

Rounded where a step compiled by PyTorch rounds, but for what is added to the stream, which stays as
it is.
"""

from pathlib import Path

import torch

from stages.nn.kernels.steps import KernelStepper
from stages.nn.kernels.tiles import BLOCK, has_tiles, tile_kernels
from stages.nn.transformer import Transformer

__all__ = ["can_step_with_tiles", "tile_stepper"]

_SOURCE = Path(__file__).with_suffix(".cpp")


def can_step_with_tiles(transformer: Transformer) -> bool:
    """Whether the kernel can take it: in bfloat16, of sizes it knows, on a CPU that has tiles."""
    return (
        transformer.step_precision == torch.bfloat16
        and transformer.norm.weight.device.type == "cpu"
        and transformer.blocks[0].attention.head_dim % BLOCK == 0
        and has_tiles()
    )


def tile_stepper(transformer: Transformer) -> KernelStepper:
    """What takes the steps of one that `can_step_with_tiles`."""
    return KernelStepper(transformer, tile_kernels, _SOURCE)
