"""One stage through DVC, and what its end means for the flow: done, worth another try, or not.

`dvc repro --single-item STAGE` decides whether the stage runs, is restored from the cache, or is
there already. Three ends are worth another try, because nobody has to mend anything first: the
stage was interrupted or killed (it goes on from its checkpoint), and another DVC process held the
repository. A user's mistake or a defect would only cost the same hours again.

DVC gives up its lock while the stage runs and must get it back afterwards. If that fails, the
finished outputs stand there unrecorded, and the next `repro` would delete them; `dvc commit`
records them. It refuses if an output is missing, and stages write each output whole or not at all.
What a killed DVC has left half-written is mended, once (`pipelines.workspace.dvc_locks`).
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipelines.workspace.dvc_locks import mend_dvc
from pipelines.workspace.runner import CommandTimeout, Finished, run_command
from stages.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, LatentlineError

__all__ = ["StageFailed", "reproduce", "stage_environment"]

# Killed by SIGKILL (most often for memory) or SIGTERM, as the shell or as Python tells it.
PASSING_STATUSES = frozenset({EXIT_INTERRUPTED, 128 + 9, 128 + 15, -9, -15})
LOCK_LOST = "Unable to acquire lock"
PATH_BUSY = "is busy, it is being blocked by"
LEFT_BY_A_KILL = (PATH_BUSY, "RWLock-file", "dvc.lock")
LAST_LINES = 40


class StageFailed(LatentlineError):
    """A stage did not reach its end; the message is the stage's own."""

    def __init__(self, message: str, *, exit_status: int, worth_retrying: bool) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        """For the command line: 1, or 75 where running again goes on."""
        self.worth_retrying = worth_retrying


def stage_environment(additions: Mapping[str, str], removed: Iterable[str]) -> dict[str, str]:
    """The environment DVC and the stages run in.

    Args:
        additions: Variables to set.
        removed: Variables no stage may inherit.
    """
    environment = {**os.environ, **additions}
    for name in removed:
        environment.pop(name, None)
    # The `python` of a stage's command is this one, also where a worker has no active environment.
    interpreter = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([interpreter, environment.get("PATH", os.defpath)])
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def reproduce(
    stage: str,
    workspace: Path,
    on_line: Callable[[str], None],
    *,
    environment: Mapping[str, str],
    timeout_minutes: float,
    force: bool,
    keep_open: Iterable[int] = (),
    watch: Callable[[], object] = lambda: None,
    restore: bool = False,
) -> None:
    """Bring one stage up to date; the stages before it must be.

    Args:
        stage: Name in dvc.yaml.
        workspace: Folder of dvc.yaml.
        on_line: Told each line of output as it comes.
        environment: From `stage_environment`.
        timeout_minutes: After these the stage is stopped.
        force: Whether to run it though nothing changed.
        keep_open: File descriptors the dvc process inherits.
        watch: Called while the stage runs, some times a second; what it raises stops the stage.
        restore: The stages before it have run elsewhere: bring them here from the cache, too.

    Raises:
        StageFailed: If the stage did not reach its end.
    """
    started = False

    def hear(line: str) -> None:
        nonlocal started
        started = started or line.startswith(f"Running stage '{stage}'")
        on_line(line)

    def dvc(*arguments: str) -> Finished:
        # Waiting is a flag before the subcommand only; without it two processes meet and one fails.
        return run_command(
            [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
            hear,
            cwd=workspace,
            env=environment,
            timeout=60 * timeout_minutes,
            keep_open=keep_open,
            watch=watch,
        )

    try:
        command = ("repro", *["--single-item"] * (not restore), *["--force"] * force, stage)
        done = dvc(*command)
        if done.status != 0 and _is_in_dvcs_way(done) and mend_dvc(workspace, on_line):
            done = dvc(*command)
        if done.status != 0 and started and _says(done, LOCK_LOST):
            on_line(f"{stage}: DVC lost its lock; recording what the stage has written")
            done = dvc("commit", "--force", stage)
    except CommandTimeout:
        raise _stopped(stage, timeout_minutes) from None
    if done.status != 0:
        raise _failure(stage, done)


def _stopped(stage: str, minutes: float) -> StageFailed:
    return StageFailed(
        f"{stage}: stopped: it may take {minutes:g} minutes; its state is kept, so run again to go "
        "on, or allow it more",
        exit_status=EXIT_INTERRUPTED,
        worth_retrying=False,
    )


def _failure(stage: str, done: Finished) -> StageFailed:
    exited = [
        int(found) for line in done.tail for found in re.findall(r"exited with (-?\d+)", line)
    ]
    status = exited[-1] if exited else None
    passing = (
        bool({status, done.status} & PASSING_STATUSES)
        or _says(done, LOCK_LOST)
        or _says(done, PATH_BUSY)
    )
    interrupted = status == EXIT_INTERRUPTED
    return StageFailed(
        _message(stage, status, done),
        exit_status=EXIT_INTERRUPTED if interrupted else EXIT_USER_ERROR,
        worth_retrying=passing,
    )


def _message(stage: str, status: int | None, done: Finished) -> str:
    """The stage's own words if it had any, else its last lines."""
    lines = list(done.tail)
    if status is None:
        errors = [i for i, line in enumerate(lines) if line.startswith("ERROR:")]
        told = lines[errors[0] :] if errors else lines[-LAST_LINES:]
        return "\n".join([f"{stage}: DVC failed with exit status {done.status}", *told])
    ends = [i for i, line in enumerate(lines) if line.startswith("ERROR: failed to reproduce")]
    lines = lines[: ends[0]] if ends else lines
    own = [i for i, line in enumerate(lines) if line.startswith(f"{stage}: ")]
    if own and not any(line.startswith("Traceback") for line in lines[own[-1] :]):
        return "\n".join(lines[own[-1] :]).strip()
    killed = " (killed, most often for want of memory)" if status in (-9, 137) else ""
    begin = max((i for i, line in enumerate(lines) if line.startswith("> ")), default=-1) + 1
    said = [line for line in lines[begin:][-LAST_LINES:] if line]
    heading = f"{stage}: ended with exit status {status}{killed}"
    return "\n".join([f"{heading}; its last lines:", *said]) if said else heading


def _is_in_dvcs_way(done: Finished) -> bool:
    return any(_says(done, words) for words in LEFT_BY_A_KILL)


def _says(done: Finished, words: str) -> bool:
    return any(words in line for line in done.tail)
