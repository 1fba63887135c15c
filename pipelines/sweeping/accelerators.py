"""Who computes on which accelerator of a machine: one branch of a sweep at a time on each.

An accelerator is held by an exclusive `flock` on a file of its own, in a folder that all projects
of a user on the machine have in common. Stages inherit the open file: one that outlives a killed
flow keeps its accelerator until it ends. Prefect's limits say how many may work, not on what.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipelines.workspace.lock import try_lock

__all__ = ["ANY", "Accelerators", "accelerator_folder", "one_that_is_free"]


@dataclass(frozen=True)
class Accelerators:
    """Accelerators that are held.

    Args:
        names: As CUDA_VISIBLE_DEVICES has them, joined by commas; empty: whatever is there, with
            nobody kept away.
        locks: Descriptors of their files, for subprocesses to inherit.
    """

    names: str = ""
    locks: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a stage see these alone."""
        return {"CUDA_VISIBLE_DEVICES": self.names} if self.names else {}


ANY = Accelerators()


def accelerator_folder() -> Path:
    """Where the locks lie."""
    return Path(tempfile.gettempdir()) / f"latentline-accelerators-{os.getuid()}"


@contextmanager
def one_that_is_free(choices: Sequence[str]) -> Iterator[Accelerators | None]:
    """Within, the first of these that nobody holds is held.

    Args:
        choices: Each an accelerator, or several for one branch joined by commas.

    Yields:
        What is held; None if each is held by somebody, wholly or in part.
    """
    for names in choices:
        # Of one that is free in part nothing is kept: two who wait would wait for each other.
        with ExitStack() as opened:
            files = [opened.enter_context(_lock_file(name)) for name in names.split(",")]
            if all(try_lock(file) for file in files):
                yield Accelerators(names, tuple(file.fileno() for file in files))
                return
    yield None


def _lock_file(name: str) -> TextIO:
    path = accelerator_folder() / re.sub(r"[^\w-]", "_", name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return path.open("a", encoding="utf-8")
