"""The batch of a step in pieces: who computes which, and from which streams.

    loss of the step = mean over its pieces,      gradient = mean of theirs

A batch is always cut into `pieces` parts of equal size, and every piece has its own random stream
(seed, step, piece). Processes take pieces in turn; one process takes them all, one after another,
which is gradient accumulation. So losses and weights are the same numbers in any number of
processes, but for the order in which they are added. One piece keeps the streams (seed, step).
"""

import torch
from torch import Tensor, nn

from stages.core.devices import autocast
from stages.core.randomness import seed_everything, torch_stream
from stages.core.ranks import world
from stages.training.order import BatchOrder
from stages.training.task import Task

__all__ = ["PieceLoss", "compiled", "own_pieces"]


def own_pieces(pieces: int) -> range:
    """The pieces of every step that this process computes."""
    rank, size = world()
    assert pieces >= size, f"{pieces} pieces for {size} processes"
    return range(rank, pieces, size)


class PieceLoss(nn.Module):
    """The loss of one piece, as a module that can be wrapped as a whole.

    Args:
        task: Model, data and loss.
        order: Which rows a step sees.
        pieces: Parts of a batch.
        seed: Root of the streams.
        device: Where to compute.
        dtype: Of products and convolutions.
        compile: Whether the model is compiled.
    """

    def __init__(
        self,
        task: Task,
        order: BatchOrder,
        pieces: int,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        compile: bool,
    ) -> None:
        super().__init__()
        self.module = task.module
        # Compiled or not, the weights are those of `module`.
        self._called = (compiled(task.module, pieces, device) if compile else task.module,)
        self._compiled = compile
        self._task, self._order, self._pieces = task, order, pieces
        self._seed, self._device, self._dtype = seed, device, dtype

    def forward(self, step: int, piece: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the piece, and figures beside it without a graph."""
        names = ("piece", piece) if self._pieces > 1 else ()
        seed_everything(self._seed, "step", step, *names)
        stream = torch_stream(self._seed, "batch noise", step, *names, device=self._device)
        rows = self._order.rows(step).reshape(self._pieces, -1)[piece]
        batch = self._task.batch(rows, self._device)
        if self._compiled:
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(self._dtype, self._device):
            loss, figures = self._task.loss(self._called[0], batch, stream, step)
        return loss, {name: value.detach() for name, value in figures.items()}


def compiled(module: nn.Module, pieces: int, device: torch.device) -> nn.Module:
    """The module compiled; on a GPU its kernels are launched together, as a CUDA graph.

    Not where gradients of several pieces add up, or are sent to other processes: graphs write them
    to the same place every time.
    """
    graphs = device.type == "cuda" and pieces == 1
    return torch.compile(module, mode="reduce-overhead" if graphs else None)
