"""How a stage runs: parameters checked, work kept, record opened, errors told in one message.

A stage program is a function `(params, run) -> None`; `run_stage` calls it with what it asked for
and turns every way it can end into an exit status:

    0   done; outputs in place, `data/runs/STAGE.json` names the tracked run that made them
    1   a user's mistake, told in one message
    75  interrupted; state is in `.work/STAGE/KEY`, run again to go on

So it ends, too, where what it began with was edited meanwhile (`stages.core.unedited`).

A stage that can be divided (`divided`) runs in as many processes as the section `compute` asks for:
this process then starts them and waits (`stages.core.launch`). Work begun by one number of
processes goes on in another.

Work that grows (50,000 samples where 1,000 are already drawn) may outlive its stage: what a program
leaves in `run.kept` stays until work of another name has finished.
"""

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from stages.core.alone import take
from stages.core.artifacts import Artifact, open_artifact, write_json
from stages.core.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    Interrupted,
    LatentlineError,
    explained,
)
from stages.core.launch import launch, launched_here, leave_reason, node_rank
from stages.core.ranks import (
    ComputeOptions,
    agree,
    is_first_process,
    joined,
    was_started_by_launcher,
)
from stages.core.sections import PARAMS_PATH, Section, parse_params, read_yaml
from stages.core.tracking import Tracker, open_tracker
from stages.core.unedited import code_files, digest_of, require_unedited

__all__ = ["Run", "exit_statuses", "run_stage", "stop_on_signals", "work_root"]

P = TypeVar("P", bound=Section)

_KEPT = "kept"


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
    is_first: bool = True
    """Whether this is the process that writes what the stage leaves, where there are several."""

    @property
    def kept(self) -> Path:
        """Folder for what later runs of growing work go on from."""
        folder = self.work / _KEPT
        folder.mkdir(exist_ok=True)
        return folder

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
    inputs: Mapping[str, Path] | Callable[[P], Mapping[str, Path]],
    grows: Sequence[str] = (),
    divided: Callable[[P], bool] = lambda params: False,
) -> None:
    """Run a stage program and exit the process with its status.

    Args:
        stage: Name of the stage, as in dvc.yaml.
        params_type: The sections of params.yaml it reads.
        program: What it does.
        inputs: Artifacts it reads: type -> folder; or what says so, given the parameters.
        grows: Parameters (dotted names) that say how much is made and not what: they are no part of
            the work's name.
        divided: Whether, with these parameters, several processes can share the work. The
            parameters then have a section `compute`, which is no part of the work's name either.
    """
    with exit_statuses(stage):
        _run(stage, params_type, program, inputs, grows, divided)


@contextmanager
def exit_statuses(stage: str) -> Iterator[None]:
    """Turn every way in which the work within can end into one message and an exit status."""
    try:
        yield
    except Interrupted as stopped:
        _say(str(stopped))
        _exit(EXIT_INTERRUPTED)
    except LatentlineError as error:
        leave_reason(error)
        _say(f"{stage}: {error}")
        _exit(EXIT_USER_ERROR)
    except Exception as error:
        message = explained(error)
        if message is None and not launched_here():
            raise
        leave_reason(error if message is None else LatentlineError(message))
        _say(f"{stage}: {message}")
        _exit(EXIT_USER_ERROR)


def _say(message: str) -> None:
    """Speak, unless somebody speaks for this process."""
    if not launched_here():
        print(message, file=sys.stderr)


def _exit(status: int) -> None:
    if not launched_here():
        sys.exit(status)
    # Whatever the other processes still expect of this one, they learn from its end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(
    stage: str,
    params_type: type[P],
    program: Callable[[P, Run], None],
    inputs: Mapping[str, Path] | Callable[[P], Mapping[str, Path]],
    grows: Sequence[str],
    divided: Callable[[P], bool],
) -> None:
    raw = read_yaml(PARAMS_PATH)
    params = parse_params(params_type, raw, source=str(PARAMS_PATH), strict=False)
    code = code_files()
    # The whole file is checked before any work is lost to a mistake in a later section. By name
    # and not by import: the check can only refuse, never change a byte, so the code of the later
    # sections is no dependency of this stage.
    whole = importlib.import_module("stages.params")
    checked = whole.check(raw, source=str(PARAMS_PATH))
    whole.require_named_files(checked)
    paths = inputs(params) if callable(inputs) else inputs
    opened = {type: open_artifact(path, type) for type, path in paths.items()}
    whole.require_suitable_data(checked, opened)
    key = _key(stage, params, opened, digest_of(code), grows)
    unedited = partial(require_unedited, stage, params_type, params, opened, code)
    compute: ComputeOptions | None = getattr(params, "compute", None)
    if compute is None or compute.world_size == 1 or not divided(params):
        # Where torchrun has started several all the same, the first does the work.
        if is_first_process():
            with _locked_work_folder(stage, key) as work:
                _work(stage, params, program, opened, work, unedited)
    elif not was_started_by_launcher():
        # Of several hosts that share this folder, the first holds the lock.
        first_host = node_rank(compute) == 0
        with _locked_work_folder(stage, key) if first_host else nullcontext():
            launch(stage, compute, f"stages.{stage}")
    else:
        mine = is_first_process() and not launched_here()
        with joined(compute, getattr(params, "device", "cpu")):
            agree(key, f"{stage}: the name of the work (parameters, inputs, code)")
            with _locked_work_folder(stage, key) if mine else nullcontext():
                _work(stage, params, program, opened, _work_folder(stage, key), unedited)


def _work(
    stage: str,
    params: P,
    program: Callable[[P, Run], None],
    opened: dict[str, Artifact],
    work: Path,
    unedited: Callable[[], None],
) -> None:
    with stop_on_signals() as stop:
        tracker = open_tracker(stage, work)
        tracker.log_params(params.model_dump(mode="json"))
        for artifact in opened.values():
            tracker.log_input(artifact.type, artifact.digest, artifact.path)
        try:
            program(params, Run(stage, work, opened, tracker, stop, is_first_process()))
            if is_first_process():
                unedited()
        except BaseException as error:
            tracker.close("KILLED" if isinstance(error, Interrupted) else "FAILED")
            raise
        if is_first_process():
            tracker.close("FINISHED")
            _write_marker(stage, tracker)
            _clear(work)


def _key(
    stage: str,
    params: Section,
    inputs: Mapping[str, Artifact],
    code: str,
    grows: Sequence[str],
) -> str:
    """Name of all that shapes the trajectory: parameters, input bytes, code."""
    values = params.model_dump(mode="json")
    values.pop("compute", None)
    for name in grows:
        *parents, last = name.split(".")
        place: dict[str, Any] = values
        for parent in parents:
            place = place[parent]
        del place[last]
    parts = {
        "stage": stage,
        "params": values,
        "inputs": {type: artifact.digest for type, artifact in inputs.items()},
        "code": code,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def work_root() -> Path:
    """`.work` of the project: of the main checkout, even in an experiment's temporary copy."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


def _clear(work: Path) -> None:
    """Remove a finished work folder but for what is kept, and then what others had kept."""
    if not (work / _KEPT).exists():
        shutil.rmtree(work, ignore_errors=True)
        return
    _remove_all_but_kept(work)
    for other in work.parent.iterdir():
        # What holds more than that was interrupted and has still to go on.
        if other.is_dir() and other != work and [f.name for f in other.iterdir()] == [_KEPT]:
            with other.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(other, ignore_errors=True)


def _remove_all_but_kept(work: Path) -> None:
    for entry in work.iterdir():
        if entry.is_dir() and entry.name != _KEPT:
            shutil.rmtree(entry, ignore_errors=True)
        elif not entry.is_dir():
            entry.unlink(missing_ok=True)


@contextmanager
def _locked_work_folder(stage: str, key: str) -> Iterator[Path]:
    folder = work_root() / stage
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        take(lock, f"{stage}: another process does the same work ({key}); waiting")
        yield _work_folder(stage, key)


def _work_folder(stage: str, key: str) -> Path:
    work = work_root() / stage / key
    work.mkdir(parents=True, exist_ok=True)
    return work


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
