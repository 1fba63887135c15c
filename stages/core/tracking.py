"""The record of a stage: what it was given, how it went, which run of MLflow shows it.

A stage only appends to a journal on its own disk (`stages.core.journal`). A second process,
`python -m stages.upload_history --follow`, started here, imports MLflow (seconds, hundreds of
megabytes), opens the run and sends what the journal gains. So logging costs a stage microseconds,
no server can slow it down or fail it, no lock of a library is held when a data loader forks, and
a stage that is killed still has its end recorded.

    LATENTLINE_TRACKING=off   no record at all
    MLFLOW_TRACKING_URI       where to (else `mlflow.db` of the project)
    MLFLOW_EXPERIMENT_NAME    which experiment (else `latentline`)
    MLFLOW_RUN_CONTEXT        JSON of tags every run gets
    LATENTLINE_PARENT_RUN_ID  the run of the line this stage is part of
    LATENTLINE_LINE           that line's own name, known also where no store answers

MLFLOW_RUN_ID is ignored: to MLflow it means "continue that run, and finish it at the end", which
would close the run of the line.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import stages.core.quiet  # noqa: F401
from stages.core.errors import LatentlineError
from stages.core.journal import (
    JournalWriter,
    new_journal_folder,
    project_root,
)
from stages.core.json_files import replace_json
from stages.core.provenance import provenance_tags
from stages.core.store import SQLITE, experiment_name, portable, tracking_uri, without_credentials

__all__ = ["RECEIPT", "JournalTracker", "NullTracker", "Tracker", "open_tracker"]

RECEIPT = "tracking.json"
"""In the work folder: which record this work belongs to and, once known, which run shows it."""

CLOSING_SECONDS = 30.0
"""Longest wait at the end of a stage; the sender itself gives up sooner when a server is down."""
LOCAL_CLOSING_SECONDS = 180.0
"""The same for a store that is a file: it is never down, but slow to make on a busy machine."""
KILLED_SECONDS = 10.0
"""Longest wait when the stage was told to stop: whoever told it waits too."""
IDENTITY_SECONDS = 15.0
LARGEST_FILE = 64 * 2**20
"""Bytes. Anything bigger belongs to DVC, which keeps it once."""


class Tracker(ABC):
    """Where a stage logs. No method raises on account of tracking, and none waits for a server."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters; nested sections become dotted names."""
        self._append("params", params=dict(params))

    def log_tag(self, name: str, value: str) -> None:
        """Record a word about the run that people search for."""
        self._append("tag", name=name, value=value)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers of one step; logging a step again after a resume is harmless."""
        values = {name: float(value) for name, value in metrics.items()}
        self._append("metrics", metrics=values, step=step or 0)

    def log_image(self, path: Path, key: str, step: int | None = None) -> None:
        """Record a picture; those of one key make a series over steps."""
        self._append("image", file=path, key=key, step=step or 0)

    def log_file(self, path: Path) -> None:
        """Record a small file."""
        self._append("file", file=path, name=path.name)

    def log_input(self, name: str, digest: str, path: Path) -> None:
        """Record an artifact the stage reads."""
        self._append("input", name=name, digest=digest, path=path.as_posix())

    def log_model(self, name: str, path: Path, digest: str) -> None:
        """Record a model by name and digest; its bytes stay with DVC at `path`."""
        self._append("model", name=name, digest=digest, path=path.as_posix())

    @abstractmethod
    def _append(self, kind: str, file: Path | None = None, **fields: Any) -> None:
        """Take one record, with the file it speaks of."""

    @abstractmethod
    def identity(self) -> dict[str, str | None]:
        """Names for the marker: run_id, experiment_id, parent_run_id, tracking_uri, record, line.

        `record` finds the run by its tag when the store answered too late for its run_id to be
        known. All but `line` are None when nothing is tracked.
        """

    @abstractmethod
    def close(self, status: str) -> None:
        """End the record: FINISHED, FAILED or KILLED."""


@final
class NullTracker(Tracker):
    """Records nothing."""

    def _append(self, kind: str, file: Path | None = None, **fields: Any) -> None:
        pass

    def identity(self) -> dict[str, str | None]:
        """No names but that of the line."""
        names = ("run_id", "experiment_id", "parent_run_id", "tracking_uri", "record")
        return {**dict.fromkeys(names), "line": _line()}

    def close(self, status: str) -> None:
        """There is nothing to end."""


@final
class JournalTracker(Tracker):
    """Appends to a journal that a second process delivers to MLflow.

    Raises:
        OSError: If the journal cannot be opened.
    """

    def __init__(self, stage: str, work: Path) -> None:
        self._root = project_root()
        self._stage = stage
        self._uri = without_credentials(tracking_uri(self._root))
        self._parent = os.environ.get("LATENTLINE_PARENT_RUN_ID") or None
        self._receipt = work.resolve() / RECEIPT
        known = self._known_run()
        self._record = known.get("record") or uuid.uuid4().hex
        attempt = int(known.get("attempt") or 0) + 1
        self._identity: dict[str, str | None] | None = None
        self._ended = False
        self._journal = JournalWriter(new_journal_folder(self._root, stage))
        receipt = {"record": self._record, "tracking_uri": self._uri}
        replace_json(self._receipt, {**receipt, **known, "attempt": str(attempt)})
        self._journal.append(
            "open",
            stage=stage,
            record=self._record,
            tracking_uri=self._uri,
            experiment=experiment_name(),
            receipt=str(self._receipt),
            tags=provenance_tags(stage, self._record, self._parent, attempt),
        )
        self._sender = _start_sender(self._journal.folder)

    def _known_run(self) -> dict[str, str]:
        """What an earlier attempt in this work folder left, if it recorded to this store."""
        try:
            known = json.loads(self._receipt.read_text())
        except (OSError, ValueError):
            return {}
        return known if known.get("tracking_uri") == self._uri else {}

    def _append(self, kind: str, file: Path | None = None, **fields: Any) -> None:
        if self._ended:
            return
        try:
            if file is not None:
                if file.stat().st_size > LARGEST_FILE:
                    self._warn(f"{file} is too big for a record and was left out")
                    return
                fields["file"] = self._journal.keep(file)
            self._journal.append(kind, **fields)
        except OSError as error:
            self._ended = True
            self._warn(f"the record ends here, the work goes on: {error}")

    def _warn(self, message: str) -> None:
        print(f"{self._stage}: tracking: {message}", file=sys.stderr)

    def identity(self) -> dict[str, str | None]:
        """Names of the run; waits a while for the store, and no longer once closed."""
        if self._identity is not None:
            return self._identity
        deadline = time.monotonic() + IDENTITY_SECONDS
        while "run_id" not in (known := self._known_run()) and self._sender_runs():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return self._identity_from(known)

    def _sender_runs(self) -> bool:
        return self._sender is not None and self._sender.poll() is None

    def _identity_from(self, known: Mapping[str, str]) -> dict[str, str | None]:
        return {
            "run_id": known.get("run_id"),
            "experiment_id": known.get("experiment_id"),
            "parent_run_id": self._parent,
            # The marker travels with the data; a path of this machine says nothing elsewhere.
            "tracking_uri": portable(self._uri, self._root),
            "record": self._record,
            "line": _line(),
        }

    def close(self, status: str) -> None:
        """End the record and wait a bounded time for its delivery; a second call does nothing."""
        if self._identity is not None:
            return
        self._append("close", status=status)
        self._ended = True
        self._journal.close()
        finished = LOCAL_CLOSING_SECONDS if self._uri.startswith(SQLITE) else CLOSING_SECONDS
        delivered = self._wait(finished if status == "FINISHED" else KILLED_SECONDS)
        self._identity = self._identity_from(self._known_run())
        if not delivered:
            self._warn(
                f"not all of the record reached {self._uri}; it is kept. "
                "Deliver it with: python -m stages.upload_history"
            )

    def _wait(self, seconds: float) -> bool:
        if self._sender is None:
            return False
        try:
            self._sender.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._sender.kill()
            self._sender.wait()
        # The sender may have been busy with what earlier stages had left.
        return not self._journal.folder.exists()


def _line() -> str | None:
    return os.environ.get("LATENTLINE_LINE") or None


def _start_sender(folder: Path) -> subprocess.Popen[bytes] | None:
    """Start the process that delivers a journal while it grows, in this process group.

    In the group, because whoever kills the group must find nothing left of it.
    """
    sources = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (sources, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "ignore", "-m", "stages.upload_history"]
    command += ["--follow", str(folder), "--writer", str(os.getpid())]
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    except OSError as error:
        print(f"tracking: the record is kept but not sent now: {error}", file=sys.stderr)
        return None


def open_tracker(stage: str, work: Path) -> Tracker:
    """Open the record of a stage, or go on with the one its work folder belongs to.

    Args:
        stage: Name of the stage.
        work: Its work folder; a stage that starts again in it continues the same run.

    Returns:
        A tracker that records nothing if LATENTLINE_TRACKING is `off`, in every process but the
        first of a distributed stage, and when the disk takes no journal.
    """
    # An inherited run id would make MLflow end somebody else's run.
    os.environ.pop("MLFLOW_RUN_ID", None)
    switched_off = os.environ.get("LATENTLINE_TRACKING", "").lower() == "off"
    if switched_off or os.environ.get("RANK", "0") != "0":
        return NullTracker()
    try:
        return JournalTracker(stage, work)
    except (LatentlineError, OSError) as error:
        print(f"{stage}: tracking: no record is kept: {error}", file=sys.stderr)
        return NullTracker()
