"""A process that goes on when its starter has ended, and can be ended later: it and all it started.

A process id alone proves nothing later on: the system gives it to somebody else. So the note that
is left, `.work/servers/NAME.pid`, holds two more things: the start time, by which the process
itself is known, and a token that stands in its environment and is inherited by everything it
starts. By the token its descendants are found even when they have sessions of their own (a worker's
flow runs do) or have outlived it (`kill -9`).
"""

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import psutil

from pipelines.machine.servers import Server, start
from stages.core.errors import LatentlineError
from stages.core.json_files import replace_json

__all__ = ["TOKEN", "Background", "Note", "end_all", "living_process"]

TOKEN = "LATENTLINE_SERVER"
"""Variable that holds the token."""
GRACE_SECONDS = 25.0
"""Between SIGTERM and SIGKILL: a flow run gives its stage 20 s to save a checkpoint."""
HOPELESS_SECONDS = 60.0
SAME_START_SECONDS = 2.0
"""The system's clock may be set meanwhile, and start times move with it."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Note:
    """What is kept of a process."""

    pid: int
    started: float
    """Seconds since 1970, as the system tells it."""
    token: str
    url: str
    """Its page, or what it serves."""
    log: str


def living_process(pid: int, started: float) -> psutil.Process | None:
    """The process that was noted, if it lives.

    Args:
        pid: Its number, which may be another's by now.
        started: When it started, in seconds as psutil tells.
    """
    try:
        found = psutil.Process(pid)
        same = abs(found.create_time() - started) < SAME_START_SECONDS
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


@final
class Background:
    """One process by name.

    Args:
        root: Of the project.
        name: In lower case; of its note.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self._root = root
        self._path = root / ".work" / "servers" / f"{name}.pid"

    @property
    def note(self) -> Note | None:
        """What is known of it; None if it was never started or was ended."""
        try:
            return Note(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def process(self) -> psutil.Process | None:
        """The process itself, if it lives."""
        note = self.note
        return None if note is None else living_process(note.pid, note.started)

    def family(self) -> list[psutil.Process]:
        """It and all its living descendants, also those that have outlived it."""
        note = self.note
        if note is None:
            return []
        leader = self.process()
        found = {process.pid: process for process in _carriers(note.token)}
        if leader is not None:
            found[leader.pid] = leader
            try:
                found |= {child.pid: child for child in leader.children(recursive=True)}
            except psutil.Error:
                pass  # it has ended just now; the token finds the others
        return list(found.values())

    def launch(self, server: Server) -> subprocess.Popen[bytes]:
        """Start it; what is left of an earlier one must have been ended."""
        token = uuid.uuid4().hex
        # Before the process is there: whoever is killed in between leaves it to be found.
        self._write(Note(0, 0.0, token, server.url, str(server.log)))
        process = start(server, self._root, {TOKEN: token})
        started = psutil.Process(process.pid).create_time()
        self._write(Note(process.pid, started, token, server.url, str(server.log)))
        return process

    def end(self, meanwhile: Callable[[], object] = lambda: None) -> int:
        """End it and all its descendants, and forget it.

        Args:
            meanwhile: Called once when they are gone and the note is still there.

        Returns:
            How many processes there were.
        """
        count = end_all(self.family)
        meanwhile()
        self._path.unlink(missing_ok=True)
        return count

    def _write(self, note: Note) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_json(self._path, asdict(note))


def end_all(find: Callable[[], list[psutil.Process]], grace: float = GRACE_SECONDS) -> int:
    """End processes: SIGTERM once to each, SIGKILL to those that are left after `grace` seconds.

    Args:
        find: Finds those that live now; asked again, because they may start others while they end.
        grace: Seconds.

    Returns:
        How many there were.

    Raises:
        LatentlineError: If one does not even end by SIGKILL: it waits for a device, or is not ours.
    """
    told: set[int] = set()
    deadline = time.monotonic() + grace
    while left := find():
        patient = time.monotonic() < deadline
        if time.monotonic() > deadline + HOPELESS_SECONDS:
            raise LatentlineError(f"processes {[each.pid for each in left]} do not end by SIGKILL")
        for process in left:
            try:
                # psutil refuses if the process id meanwhile belongs to another process.
                if not patient:
                    process.kill()
                elif process.pid not in told:
                    process.terminate()
            except psutil.Error:
                continue
            told.add(process.pid)
        time.sleep(POLL_SECONDS)
    return len(told)


def _carriers(token: str) -> list[psutil.Process]:
    """Living processes with the token in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) != token:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # somebody else's, or it has ended
    return found
