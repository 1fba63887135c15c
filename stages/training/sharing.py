"""How processes share a training: not at all, by copies (DDP), or by parts of the weights (FSDP).

Copies: every process holds the model and computes the gradient of its pieces; gradients are
averaged while they are computed (Li et al. 2020, arXiv:2006.15704). Parts: weights, moments and the
averaged weights are cut among the processes, and a layer is put together only while it is used
(Zhao et al. 2023, arXiv:2304.11277), so a prior may be larger than the memory of one device.

What a checkpoint holds is whole either way: any number of processes goes on from it.

Both come from Lightning Fabric, imported only where there are several processes.
"""

import copy
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from stages.core.errors import ParamsError
from stages.core.ranks import world

__all__ = ["Sharing", "make_sharing"]

Forward = Callable[[int, int], tuple[Tensor, dict[str, Tensor]]]


class Sharing(ABC):
    """What the training loop asks of the processes it runs in."""

    @abstractmethod
    def split(self, *modules: nn.Module) -> None:
        """Cut modules among the processes, where that is the way; before the optimiser is made."""

    @abstractmethod
    def wrap(self, losses: nn.Module) -> Forward:
        """What computes the loss of a piece, so that its gradient becomes that of all."""

    @abstractmethod
    def gradients_wait(self, waiting: bool) -> AbstractContextManager[None]:
        """Within, where `waiting`, gradients add up in each process and are not sent yet."""

    @abstractmethod
    def backward(self, loss: Tensor, pieces: int) -> None:
        """Add the gradient of a piece's loss / pieces; over all pieces, that of their mean."""

    def whole(self, state: Any) -> Any:
        """A state with every tensor put together, as one process alone would have it."""
        return state

    def load(
        self, modules: dict[nn.Module, dict[str, Tensor]], moments: dict[str, Any], into: Optimizer
    ) -> None:
        """Take back whole states.

        Args:
            modules: Module -> its state.
            moments: State of the optimiser.
            into: The optimiser, of parameters of the modules.
        """
        for module, state in modules.items():
            module.load_state_dict(state)
        into.load_state_dict(moments)

    def result(self, module: nn.Module) -> nn.Module:
        """The module as one process alone would have it; every process must ask."""
        return module


def make_sharing(strategy: Literal["ddp", "fsdp"], device: torch.device) -> Sharing:
    """The way for the processes that have met.

    Raises:
        ParamsError: If there are several, and Lightning Fabric is not installed.
    """
    size = world()[1]
    if size == 1:
        return Alone()
    try:
        import lightning_fabric  # noqa: F401
    except ModuleNotFoundError:
        raise ParamsError(
            "compute: more than one process needs Lightning Fabric, which is not installed; "
            "pip install 'latentline[distributed]', or set compute.processes and hosts to 1"
        ) from None
    return {"ddp": Copies, "fsdp": Parts}[strategy](device, size)


@final
class Alone(Sharing):
    """One process."""

    def split(self, *modules: nn.Module) -> None:
        """Nothing to cut."""

    def wrap(self, losses: nn.Module) -> Forward:
        """The module itself."""
        return losses

    def gradients_wait(self, waiting: bool) -> AbstractContextManager[None]:
        """Nobody waits."""
        return nullcontext()

    def backward(self, loss: Tensor, pieces: int) -> None:
        """Plain."""
        (loss / pieces if pieces > 1 else loss).backward()


class _Several(Sharing):
    def __init__(self, device: torch.device, size: int) -> None:
        from lightning_fabric import Fabric

        self._size = size
        on_this_host = int(os.environ["LOCAL_WORLD_SIZE"])
        self._fabric = Fabric(
            accelerator=device.type,
            strategy=self._strategy(),
            precision="32-true",  # the loop's own autocast says what is computed in less
            devices=on_this_host,
            num_nodes=size // on_this_host,
        )
        self._fabric.launch()
        self._wrapped: Any = None

    @abstractmethod
    def _strategy(self) -> Any: ...

    def wrap(self, losses: nn.Module) -> Forward:
        """Set up by Fabric."""
        with warnings.catch_warnings():
            # torch has renamed an argument; the old name means what is wanted, in every version.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            self._wrapped = self._fabric.setup_module(losses, move_to_device=False)
        # A hint about speed: a gradient in another memory layout is copied.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        return self._wrapped

    def gradients_wait(self, waiting: bool) -> AbstractContextManager[None]:
        """As Fabric's strategy has it."""
        return self._fabric.no_backward_sync(self._wrapped, enabled=waiting)

    def backward(self, loss: Tensor, pieces: int) -> None:
        """Gradients are averaged over processes, so their mean over pieces is size times that."""
        self._fabric.backward(loss * (self._size / pieces), model=self._wrapped)


@final
class Copies(_Several):
    """Distributed data parallel."""

    def _strategy(self) -> Any:
        from lightning_fabric.strategies import DDPStrategy

        # What buffers learn is agreed upon when the step is over (stages/nn/processes.py).
        return DDPStrategy(broadcast_buffers=False, find_unused_parameters=True)

    def split(self, *modules: nn.Module) -> None:
        """Every process has all of it."""


@final
class Parts(_Several):
    """Fully sharded data parallel, layer by layer."""

    # Methods beside `forward` that look at the weights.
    _CALLED = ("log_prob", "sample")

    def _strategy(self) -> Any:
        from lightning_fabric.strategies import ModelParallelStrategy

        return ModelParallelStrategy(
            lambda module, mesh: module, data_parallel_size=self._size, tensor_parallel_size=1
        )

    def split(self, *modules: nn.Module) -> None:
        """Cut every layer of a list of layers by itself, and the rest together."""
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        self._uncut = copy.deepcopy(modules[0]).cpu()
        mesh = self._fabric.strategy.device_mesh["data_parallel"]
        for module in modules:
            for layers in [m for m in module.modules() if isinstance(m, nn.ModuleList)]:
                for layer in layers:
                    if any(True for _ in layer.parameters()):
                        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
            # The outermost too: averaged weights are looked at between two passes.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            for name in self._CALLED:
                if hasattr(module, name):
                    register_fsdp_forward_method(module, name)

    def whole(self, state: Any) -> Any:
        """Put together on the CPU; every process must ask."""
        from torch.distributed.tensor import DTensor

        return tree_map(lambda v: v.full_tensor().cpu() if isinstance(v, DTensor) else v, state)

    def load(
        self, modules: dict[nn.Module, dict[str, Tensor]], moments: dict[str, Any], into: Optimizer
    ) -> None:
        """Each tensor is cut as the module's, and moments as their parameter."""
        cut_modules = {
            module: {name: _cut(state[name], like) for name, like in module.state_dict().items()}
            for module, state in modules.items()
        }
        parameters = [p for group in into.param_groups for p in group["params"]]
        cut_moments = {
            index: {name: _cut(value, parameters[index]) for name, value in of_one.items()}
            for index, of_one in moments["state"].items()
        }
        super().load(cut_modules, {**moments, "state": cut_moments}, into)

    def result(self, module: nn.Module) -> nn.Module:
        """On the CPU."""
        self._uncut.load_state_dict(self.whole(module.state_dict()))
        return self._uncut


def _cut(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, cut as another of its shape is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
