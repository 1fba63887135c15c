"""One command as a tree of processes: its lines while they come, and nothing of it left afterwards.

The command gets a session, hence a process group, of its own. Whatever ends the wait - it ends by
itself, the time is up, Prefect cancels the flow, a user presses Ctrl-C - the whole group ends:
SIGTERM, so that a training saves a checkpoint; after `grace` seconds SIGKILL. `subprocess.run`
would kill only its direct child (here dvc) and orphan the training, which would go on writing
into the outputs of the next attempt.
"""

import codecs
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["CommandTimeout", "Finished", "end_session", "run_command", "start_session"]

GRACE_SECONDS = 20.0
"""Less than the 30 s that Prefect gives a cancelled flow before it kills it."""
TAIL_LINES = 200
LONGEST_LINE = 20_000
"""Characters; Prefect drops log records of a megabyte, and a line without end must not fill RAM."""
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    status: int
    """Exit status; -N if signal N killed it."""
    tail: tuple[str, ...]
    """Its last lines, oldest first."""


class CommandTimeout(Exception):
    """The command was stopped because its time was up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"stopped after {seconds:g} s, the time it was given")
        self.seconds = seconds


def run_command(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float | None = None,
    grace: float = GRACE_SECONDS,
    keep_open: Iterable[int] = (),
    watch: Callable[[], object] = lambda: None,
) -> Finished:
    """Run a command to its end, or end it with all its descendants.

    Args:
        command: Program and arguments; no shell.
        on_line: Called with each line of stdout and stderr as it comes. Of a progress bar that
            redraws itself with carriage returns, only the last drawing of a line is a line.
        cwd: Working directory.
        env: The whole environment.
        timeout: Seconds until the command is stopped; none waits for ever.
        grace: Seconds between SIGTERM and SIGKILL.
        keep_open: File descriptors the command inherits beside the standard three.
        watch: Called again and again while the command runs, some times a second; what it raises
            ends the command.

    Returns:
        Exit status and last lines.

    Raises:
        CommandTimeout: If the time was up.
        BaseException: Whatever was raised here while waiting (a signal handler's exception, an
            error of `on_line` or `watch`), after every process of the command is gone.
    """
    process = start_session(command, cwd=cwd, env=env, output=subprocess.PIPE, keep_open=keep_open)
    assert process.stdout is not None
    deadline = None if timeout is None else time.monotonic() + timeout
    with process.stdout, closing(_Lines(process.stdout.fileno(), on_line)) as lines:
        try:
            while process.poll() is None:
                lines.read(POLL_SECONDS)
                watch()
                if deadline is not None and time.monotonic() > deadline:
                    assert timeout is not None
                    raise CommandTimeout(timeout)
        except BaseException:
            lines.on_line = _forgiving(on_line)
            raise
        finally:
            # Read meanwhile: a process that says goodbye must not block on a full pipe.
            end_session(process, grace=grace, meanwhile=lines.read)
            # What it said between the last look and its end.
            lines.drain()
    return Finished(process.returncode, tuple(lines.tail))


def _forgiving(on_line: Callable[[str], None]) -> Callable[[str], None]:
    """`on_line` whose errors no longer matter: the caller is leaving."""

    def pass_on(line: str) -> None:
        with suppress(Exception):
            on_line(line)

    return pass_on


def start_session(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: int,
    keep_open: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command as leader of its own session; stdout and stderr go to `output`."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep_open),
        # A shell's `cmd &` leaves SIGINT ignored, that is inherited, and Prefect's worker and
        # server, which turn SIGTERM into SIGINT, could then not be stopped.
        preexec_fn=_default_interrupt
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        else None,
    )


def _default_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_session(
    process: subprocess.Popen[bytes],
    *,
    grace: float = GRACE_SECONDS,
    meanwhile: Callable[[float], object] = time.sleep,
) -> None:
    """End a process started by `start_session` and all its descendants; nothing survives.

    Members of its group are found also after the leader has gone; descendants that left the group
    for a session of their own (torchrun's ranks do) while the leader is there.

    Args:
        process: Leader of the session.
        grace: Seconds between SIGTERM and SIGKILL. An exception meanwhile (a second Ctrl-C)
            ends the patience at once.
        meanwhile: Called with the seconds of each short wait.
    """
    strays = _descendants(process.pid) if process.poll() is None else []
    try:
        _signal_all(process.pid, strays, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while _alive(process, strays) and time.monotonic() < deadline:
            meanwhile(POLL_SECONDS / 4)
    finally:
        while _alive(process, strays):
            _signal_all(process.pid, strays, signal.SIGKILL)
            time.sleep(POLL_SECONDS / 4)
        process.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _alive(process: subprocess.Popen[bytes], strays: list[psutil.Process]) -> bool:
    if process.poll() is None:
        return True
    return bool(_members(process.pid)) or any(map(_is_running, strays))


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _members(group: int) -> list[psutil.Process]:
    """Living processes of a group; in a container without init, zombies stay for ever."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == group:
                found.append(psutil.Process(pid))
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return [member for member in found if _is_running(member)]


def _signal_all(group: int, strays: list[psutil.Process], number: int) -> None:
    if _members(group):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass
    for stray in strays:
        try:
            # psutil refuses if the process id meanwhile belongs to another process.
            if os.getpgid(stray.pid) != group:
                stray.send_signal(number)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue


class _Lines:
    """The lines that come through a pipe."""

    def __init__(self, source: int, on_line: Callable[[str], None]) -> None:
        self.on_line = on_line
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._pending = ""
        self._open = True
        os.set_blocking(source, False)
        self._ready = selectors.DefaultSelector()
        self._ready.register(source, selectors.EVENT_READ)

    def read(self, seconds: float) -> bool:
        """Wait up to `seconds` for output and pass on its full lines; False if none came."""
        if not self._open:
            time.sleep(seconds)
            return False
        if not self._ready.select(seconds):
            return False
        chunk = os.read(self._source, 65536)
        if not chunk:
            self._open = False
            return False
        *lines, self._pending = (self._pending + self._decode(chunk)).split("\n")
        for line in lines:
            self._pass_on(line)
        self._pending = _last_drawing(self._pending)
        if len(self._pending) > LONGEST_LINE:
            self._pass_on(self._pending)
            self._pending = ""
        return True

    def drain(self) -> None:
        """Read what is already there, without waiting for the pipe to close."""
        while self._open and self.read(0):
            pass

    def close(self) -> None:
        """Pass on a last line that had no end."""
        self._ready.close()
        if self._pending:
            self._pass_on(self._pending)
            self._pending = ""

    def _pass_on(self, line: str) -> None:
        shown = _last_drawing(line)[:LONGEST_LINE].rstrip()
        self.tail.append(shown)
        self.on_line(shown)


def _last_drawing(line: str) -> str:
    # Trailing returns move the cursor only: "50%\r" still shows 50%.
    return re.split(r"\r+(?=[^\r])", line)[-1]
