"""How a stage runs: parameters checked, work kept, record opened, errors told in one message.

A stage program is a function `(params, run) -> None`; `run_stage` calls it with what it asked for
and turns every way it can end into an exit status:

    0   done; outputs in place, `data/runs/STAGE.json` names the tracked run that made them
    1   a user's mistake, told in one message
    75  interrupted; state is in `.work/STAGE/KEY`, run again to go on
"""

import errno
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from stages.core.artifacts import Artifact, open_artifact, write_json
from stages.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    Interrupted,
    LatentlineError,
)
from stages.core.sections import PARAMS_PATH, Section, parse_params, read_yaml
from stages.core.tracking import Tracker, open_tracker

__all__ = ["Run", "run_stage", "stop_on_signals", "work_root"]

P = TypeVar("P", bound=Section)


@dataclass
class Run:
    """What a stage program is given beside its parameters."""

    stage: str
    work: Path
    """`.work/STAGE/KEY`: survives kills, outside DVC, removed when the stage is done."""
    inputs: dict[str, Artifact]
    """The artifacts the stage reads, by type."""
    tracker: Tracker
    stop: threading.Event
    """Set by SIGTERM or SIGINT."""

    def raise_if_stopped(self) -> None:
        """Call between pieces of work whose results are already safe on disk.

        Raises:
            Interrupted: If the stage was asked to stop.
        """
        if self.stop.is_set():
            raise Interrupted(f"{self.stage}: stopped on request; run again to go on")


def run_stage(
    stage: str,
    params_type: type[P],
    program: Callable[[P, Run], None],
    inputs: Mapping[str, Path],
) -> None:
    """Run a stage program and exit the process with its status.

    Args:
        stage: Name of the stage, as in dvc.yaml.
        params_type: The sections of params.yaml it reads.
        program: What it does.
        inputs: Artifacts it reads: type -> folder.
    """
    try:
        _run(stage, params_type, program, inputs)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except LatentlineError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        message = _explain_os_error(error)
        if message is None:
            raise
        print(f"{stage}: {message}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _run(
    stage: str,
    params_type: type[P],
    program: Callable[[P, Run], None],
    inputs: Mapping[str, Path],
) -> None:
    raw = read_yaml(PARAMS_PATH)
    params = parse_params(params_type, raw, source=str(PARAMS_PATH), strict=False)
    code = _code_digest()
    # The whole file is checked before any work is lost to a mistake in a later section. By name
    # and not by import: the check can only refuse, never change a byte, so the code of the later
    # sections is no dependency of this stage.
    importlib.import_module("stages.params").check(raw, source=str(PARAMS_PATH))
    opened = {type: open_artifact(path, type) for type, path in inputs.items()}
    with (
        _locked_work_folder(stage, _key(stage, params, opened, code)) as work,
        stop_on_signals() as stop,
    ):
        tracker = open_tracker(stage, work)
        tracker.log_params(params.model_dump(mode="json"))
        for artifact in opened.values():
            tracker.log_input(artifact.type, artifact.digest, artifact.path)
        try:
            program(params, Run(stage, work, opened, tracker, stop))
        except BaseException as error:
            tracker.close("KILLED" if isinstance(error, Interrupted) else "FAILED")
            raise
        tracker.close("FINISHED")
        _write_marker(stage, tracker)
        shutil.rmtree(work, ignore_errors=True)


def _code_digest() -> str:
    """Digest of our modules loaded so far: the program and the members its parameters name."""
    root = Path(__file__).resolve().parents[1]
    files = {
        Path(file)
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(root)
    }
    code = hashlib.sha256()
    for file in sorted(files):
        code.update(file.read_bytes())
    return code.hexdigest()


def _key(stage: str, params: Section, inputs: Mapping[str, Artifact], code: str) -> str:
    """Name of all that shapes the trajectory: parameters, input bytes, code."""
    parts = {
        "stage": stage,
        "params": params.model_dump(mode="json"),
        "inputs": {type: artifact.digest for type, artifact in inputs.items()},
        "code": code,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def work_root() -> Path:
    """`.work` of the project: of the main checkout, even in an experiment's temporary copy."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


@contextmanager
def _locked_work_folder(stage: str, key: str) -> Iterator[Path]:
    folder = work_root() / stage
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{stage}: another process does the same work ({key}); waiting", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        work = folder / key
        work.mkdir(exist_ok=True)
        yield work


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Within, SIGTERM and SIGINT set the event; a second signal interrupts at once."""
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {n: signal.signal(n, request_stop) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write_marker(stage: str, tracker: Tracker) -> None:
    marker = Path("data/runs") / f"{stage}.json"
    marker.parent.mkdir(parents=True, exist_ok=True)
    building = marker.with_suffix(".building")
    write_json(building, {"stage": stage, **tracker.identity()})
    building.replace(marker)


def _explain_os_error(error: OSError) -> str | None:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}; free some space and run again: "
            "finished work is kept and the stage goes on from there"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"may not write or read{where}: {error.strerror}; mend the permissions and run again"
    return None
