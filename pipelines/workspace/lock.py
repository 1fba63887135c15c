"""One writer per workspace: a second run waits for the first instead of colliding with it.

An exclusive `flock` on `.work/workspace.lock`. It needs no server, and the kernel releases it when
the last process that holds the file open has died. The dvc subprocess inherits the open file: if
the flow is killed outright, the workspace stays taken until dvc has ended too.

Prefect's own limits queue the runs of one deployment; this covers two deployments and runs
started by hand.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["hold", "hold_workspace", "try_lock"]

POLL_SECONDS = 0.5
REMIND_SECONDS = 300.0


@contextmanager
def hold_workspace(workspace: Path, holder: str, log: Callable[[str], None]) -> Iterator[int]:
    """Hold a workspace, waiting as long as it takes.

    Args:
        workspace: Folder whose `.work/workspace.lock` is held.
        holder: Whom to name to those who wait.
        log: Told who holds the workspace when there is a wait.

    Yields:
        The descriptor of the lock file, for subprocesses to inherit.
    """
    with hold(workspace / ".work" / "workspace.lock", holder, log) as descriptor:
        yield descriptor


@contextmanager
def hold(
    path: Path, holder: str = "", log: Callable[[str], None] = lambda line: None
) -> Iterator[int]:
    """Hold the lock file `path`; the arguments are those of `hold_workspace`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _wait(file, path, log)
        file.truncate(0)
        json.dump({"holder": holder, "pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        yield file.fileno()


def try_lock(file: TextIO | int) -> bool:
    """Lock an open file, or a descriptor, for this process and what inherits it.

    Returns:
        False if another holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _wait(file: TextIO, path: Path, log: Callable[[str], None]) -> None:
    told = -REMIND_SECONDS
    # Asked again and again rather than once and for ever: between two questions Prefect can cancel
    # the run and a person can press Ctrl-C.
    while not try_lock(file):
        if time.monotonic() - told > REMIND_SECONDS:
            log(f"waiting for {path}: {_held_by(path)} holds it")
            told = time.monotonic()
        time.sleep(POLL_SECONDS)


def _held_by(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{found['holder']} (process {found['pid']} on {found['host']})"
    except (ValueError, KeyError):
        return "another run"
