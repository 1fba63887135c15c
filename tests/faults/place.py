"""A repository in which something goes wrong, and what must be true of it afterwards."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from pipelines.workspace.runner import end_session, start_session
from tests.line.repository import Repository
from tests.waiting import wait_until

__all__ = ["PATIENCE", "Place", "mounted"]

TOKEN = "LATENTLINE_FAULT_TOKEN"
"""Variable by which all that a case has started is found."""
INJECTED = Path(__file__).parent / "injected"
PATIENCE = 3000.0
"""Seconds; a machine may be busy with other things."""


class Place(Repository):
    """A repository, the processes it caused, and its records."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.token = uuid.uuid4().hex
        super().__init__(path, {TOKEN: self.token, "LATENTLINE_TRACKING": "off", **environment})
        # Elsewhere than the project: nothing of a case is an output or is committed.
        self.aside = path.with_name(f"{path.name}-faults")
        self.aside.mkdir(exist_ok=True)

    def copy(self, path: Path, **environment: str) -> "Place":
        """A repository that begins as this one stands."""
        shutil.copytree(self.path, path, symlinks=True)
        return Place(path, **environment)

    def forget(self, stage: str) -> None:
        """Let DVC know nothing of a stage, so that it must run; what it wrote goes too."""
        lock = self.path / "dvc.lock"
        content = YAML(typ="safe").load(lock.read_text())
        for out in content["stages"].pop(stage)["outs"]:
            there = self.path / out["path"]
            shutil.rmtree(there) if there.is_dir() else there.unlink()
        with lock.open("w") as file:
            YAML().dump(content, file)
        shutil.rmtree(self.path / ".dvc" / "cache" / "runs", ignore_errors=True)

    def begin_anew(self) -> None:
        """Remove all that git does not have: outputs, DVC's cache and lock, records."""
        self.git("clean", "-q", "-ffdx")

    def start(
        self, *arguments: str, fault: Mapping[str, Any] | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start `python -m ARGUMENTS` in a session of its own; what it says is in `said`."""
        env = {**self.environment, **environment}
        if fault is not None:
            order = json.dumps({"fired": str(self.fired), **fault})
            path = os.pathsep.join(filter(None, (str(INJECTED), env["PYTHONPATH"])))
            env |= {"LATENTLINE_FAULT": order, "PYTHONPATH": path}
            self.fired.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            return start_session(
                [sys.executable, "-m", *arguments], cwd=self.path, env=env, output=log.fileno()
            )

    def call(
        self, *arguments: str, fault: Mapping[str, Any] | None = None, **environment: str
    ) -> int:
        """The same to its end; its exit status, -N if signal N ended it."""
        process = self.start(*arguments, fault=fault, **environment)
        try:
            return process.wait(timeout=PATIENCE)
        except BaseException:
            end_session(process, grace=0)
            raise

    @property
    def log(self) -> Path:
        return self.aside / "said.log"

    @property
    def fired(self) -> Path:
        """Is there once the fault has happened."""
        return self.aside / "fired"

    @property
    def said(self) -> str:
        """All that the last command said."""
        return self.log.read_text(errors="replace")

    def count(self, *arguments: str) -> dict[str, dict[str, float]]:
        """Run to the end and count: process -> {"events": changes of files, "cpu": seconds}."""
        assert self.call(*arguments, fault={"count": str(self.aside)}) == 0, self.said
        return {path.stem: json.loads(path.read_text()) for path in self.aside.glob("*.json")}

    def living(self) -> list[psutil.Process]:
        """Processes that this place has caused, zombies apart."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(TOKEN) == self.token:
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
            except psutil.Error:
                continue
        return found

    def run_states(self, database: Path | None = None) -> list[tuple[str, str]]:
        """(name of the stage or flow, status) of all runs in the MLflow store."""
        with sqlite3.connect(database or self.path / "mlflow.db") as store:
            return store.execute("select name, status from runs order by start_time").fetchall()

    def require_whole(self, reference: Mapping[str, str]) -> None:
        """Bytes as undisturbed, nothing left running, nothing left half-written.

        Args:
            reference: Path of an output -> md5, of the undisturbed line.
        """
        found = self.hashes()
        assert found == reference
        assert self.dvc("status", "-q", check=False) == "", self.dvc("status", check=False)
        # A sender of records outlives a killed stage for a minute at most.
        wait_until(lambda: not self.living(), 90)
        building = [path.name for path in (self.path / "data").glob(".*")]
        assert building == [], "what was half-written is gone"

    def end_all(self) -> None:
        """End whatever a failed case has left."""
        for process in self.living():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Within, another file system lies over a folder; skips where that is not allowed.

    Args:
        folder: Made if it is not there.
        options: Of `mount`, e.g. `-t tmpfs -o size=64k`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", *options, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        wait_until(
            lambda: subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0, 30
        )
