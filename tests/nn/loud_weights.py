"""Weights that are heard."""

from typing import TypeVar

import torch
from torch import nn

__all__ = ["louder"]

Module = TypeVar("Module", bound=nn.Module)


def louder(module: Module) -> Module:
    """Weights as large as trained ones: at the start every branch is almost silent."""
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module.eval()
