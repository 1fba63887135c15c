"""Numbers that all processes of one training must agree on.

Codebook statistics must be those of the global batch: with each process's own, the copies of the
codebook would drift apart. In a single process nothing happens.
"""

import torch.distributed as dist
from torch import Tensor

__all__ = ["from_first_process", "mean_over_processes", "sum_over_processes"]


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, in place."""
    if _several():
        dist.all_reduce(value)
    return value


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of `value` over all processes, in place."""
    if _several():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value`, in place, so that a random choice is the same everywhere."""
    if _several():
        dist.broadcast(value, src=0)
    return value
