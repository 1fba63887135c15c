"""Numbers that all who take part in one step must agree on.

The batch of a step is cut into pieces, and processes share the pieces among themselves; so what a
module learns from data beside its gradients (codebook statistics, running means) must be that of
all pieces, wherever they were computed. While pieces pass, a module only adds to `StepSums`; when
the step is over (`after_step`), it takes the sums of all and learns from them once. The result
hangs on the pieces and never on how many processes there are. In a single process nothing is sent.
"""

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["StepSums", "from_first_process", "mean_over_pieces", "sum_over_processes"]


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, in place."""
    if _several():
        dist.all_reduce(value)
    return value


def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value`, in place, so that a random choice is the same everywhere.

    The first process has the first piece of every step.
    """
    if _several():
        dist.broadcast(value, src=0)
    return value


def mean_over_pieces(values: list[Tensor]) -> Tensor:
    """The mean of a number of every piece of the step.

    Args:
        values: One of each piece this process has computed; at least one.
    """
    total = sum_over_processes(torch.stack(values).sum(dim=0))
    count = sum_over_processes(torch.tensor(len(values), device=total.device))
    return total / count


class StepSums:
    """Sums over the pieces of one step."""

    def __init__(self) -> None:
        self._sums: tuple[Tensor, ...] | None = None

    def add(self, *values: Tensor) -> None:
        """Add what one piece gives; always as many tensors, of the same shapes."""
        sums = self._sums
        self._sums = values if sums is None else tuple(map(torch.add, sums, values))

    def take(self) -> tuple[Tensor, ...] | None:
        """The sums over all pieces of all processes; None if there was no piece since the last."""
        sums, self._sums = self._sums, None
        return None if sums is None else tuple(sum_over_processes(value) for value in sums)
