"""A function of tensors launched on a GPU as one graph, instead of kernel by kernel.

To draw an image token by token takes some twenty small kernels in every layer of every step, and a
processor needs longer to launch them than the GPU to run them. A CUDA graph holds all launches of
a call and repeats them at the cost of one: the same kernels, so the same bits.

The function must do the same for all inputs of the same shapes: no number may come back from the
GPU to decide what is launched. CUDA refuses to record one that does; it is then called as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

__all__ = ["Replayed"]

_MOST_ALLOCATIONS = 500_000
"""Of a call that is recorded, about as many as it launches kernels: each keeps its arguments."""

Inputs = tuple[Tensor | None, ...]
_Kind = tuple[tuple[torch.Size, torch.dtype, torch.device] | None, ...]


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    """Where it reads."""
    result: Tensor
    """Where it writes."""

    def __call__(self, inputs: Inputs) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        self.graph.replay()
        return self.result.clone()


@final
@dataclass
class Replayed:
    """The function; on a GPU, from its second call with inputs of the same shapes on, as a graph.

    The first call is taken as it stands: it may compile, and fill what is kept for later. The
    graphs and the memory that their kernels work in live as long as this object.
    """

    function: Callable[..., Tensor]
    _graphs: dict[_Kind, _Graph | None] = field(default_factory=dict)
    """None: not to be recorded, or not yet."""
    _allocations: dict[_Kind, int] = field(default_factory=dict)
    """Of a first call."""

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """What the function gives; a tensor of its own, not to be overwritten by later calls."""
        if not any(given is not None and given.is_cuda for given in inputs):
            return self.function(*inputs)
        kind = tuple(None if t is None else (t.shape, t.dtype, t.device) for t in inputs)
        if kind not in self._allocations:
            before = _allocations()
            result = self.function(*inputs)
            self._allocations[kind] = _allocations() - before
            return result
        if kind not in self._graphs:
            few = self._allocations[kind] <= _MOST_ALLOCATIONS
            self._graphs[kind] = self._record(inputs) if few else None
        graph = self._graphs[kind]
        return self.function(*inputs) if graph is None else graph(inputs)

    def _record(self, inputs: Inputs) -> _Graph | None:
        read = tuple(None if given is None else given.clone() for given in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread only: others may ask for memory meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self.function(*read)
        except RuntimeError:
            torch.cuda.synchronize()
            return None
        return _Graph(graph, read, result)


def _allocations() -> int:
    return torch.cuda.memory_stats().get("allocation.all.allocated", 0)
