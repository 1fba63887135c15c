"""Which of the processes of a stage this is: its rank, and how it meets the others.

One stage may run in many processes, on one host or several. They are started by
`stages.core.launch` or by torchrun, which both say in the environment who each is (RANK,
WORLD_SIZE, LOCAL_RANK) and where to meet (MASTER_ADDR, MASTER_PORT). The first process, rank 0,
alone holds the lock of the work folder, tracks, shows progress and writes what the stage leaves
behind. A stage that was not started so is its own first and only process, and nothing here does
anything.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field

from stages.core.errors import EXIT_INTERRUPTED, ParamsError
from stages.core.sections import Section

__all__ = [
    "LAUNCHER",
    "ComputeOptions",
    "agree",
    "barrier",
    "from_first",
    "is_first_process",
    "joined",
    "was_started_by_launcher",
    "world",
]

# A process waits so long for the others: the slowest validation or picture of the first of them.
MEETING_TIMEOUT = timedelta(hours=2)
WATCH_SECONDS = 1.0
LAUNCHER = "LATENTLINE_LAUNCHER"
"""Variable that holds the number of the process that started the others, where it is ours."""


class ComputeOptions(Section):
    """The `compute` section: in how many processes the stages that can be divided run."""

    processes: int = Field(ge=1)
    """Processes on every host: one per accelerator, or a few that share the cores of a CPU."""
    hosts: int = Field(ge=1)
    """Hosts that take part, each with as many processes; `docs/scale.md` says how they meet."""
    prior_strategy: Literal["ddp", "fsdp"]
    """How processes share the training of a prior: ddp, a copy of the weights in each; fsdp, a
    part of weights and moments in each, for priors that do not fit."""

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.processes * self.hosts


def was_started_by_launcher() -> bool:
    """Whether this process is one of several that torchrun, or our launcher, has started."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Whether this is rank 0, the one that writes and speaks; true where there is but one."""
    return os.environ.get("RANK", "0") == "0"


def world() -> tuple[int, int]:
    """(rank, number of processes) of those that have met; (0, 1) alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def barrier() -> None:
    """Wait until every process is here."""
    if world()[1] > 1:
        dist.barrier()


def from_first(value: Any) -> Any:
    """The first process's value, in every process; tensors in it on the CPU."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def agree(value: Any, what: str) -> None:
    """Make sure that all processes hold the same value.

    Args:
        value: Picklable.
        what: What to call it in the message.

    Raises:
        ParamsError: In every process, if they do not.
    """
    size = world()[1]
    if size == 1:
        return
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    others = [rank for rank, other in enumerate(values) if other != values[0]]
    if others:
        raise ParamsError(
            f"{what} must be the same in every process, but rank 0 has {values[0]!r} and rank "
            f"{others[0]} has {values[others[0]]!r}; give every host the same commit, params.yaml "
            "and input data"
        )


@contextmanager
def joined(compute: ComputeOptions, device: str) -> Iterator[None]:
    """Meet the other processes; within, numbers can be sent between them.

    Args:
        compute: How many processes there must be.
        device: The `device` parameter: tensors on accelerators travel by NCCL, others by gloo.

    Raises:
        ParamsError: If other processes were started than the parameters ask for.
    """
    started = int(os.environ["WORLD_SIZE"])
    if started != compute.world_size:
        raise ParamsError(
            f"compute: processes * hosts must be the number of processes that were started, "
            f"{started}; got {compute.processes} * {compute.hosts}"
        )
    # The launcher may be gone before this is asked. By hand (torchrun) nobody has said who it is.
    parent = int(os.environ.get(LAUNCHER, os.getppid()))
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    backend = "gloo"
    if device in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=MEETING_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    """End this process when the launcher was killed in a way it could not pass on."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(EXIT_INTERRUPTED)
