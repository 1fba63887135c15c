"""Where a run came from, as MLflow tags: code, command, experiment, host and process."""

import getpass
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

__all__ = [
    "ATTEMPT_TAG",
    "context_tags",
    "git_tags",
    "process_tags",
    "provenance_tags",
    "user_name",
    "writer_lives",
]

ATTEMPT_TAG = "latentline.attempt"
"""Which attempt at its work a run shows. Attempts are counted: a clock may be set back."""
CLOCK_MILLISECONDS = 2000
"""Start times of processes move with the system's clock."""


def provenance_tags(stage: str, record: str, parent: str | None, attempt: int) -> dict[str, str]:
    """Tags of the run of one stage.

    Args:
        stage: Name of the stage.
        record: The record the run shows; by it a run is found again.
        parent: Run id of the line, if there is one.
        attempt: How often this work was begun, this time included.
    """
    optional = {
        "mlflow.parentRunId": parent,
        "dvc.exp": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
    }
    return {
        **context_tags(),
        **git_tags(),
        "mlflow.user": user_name(),
        "mlflow.source.name": f"stages.{stage}",
        "mlflow.source.type": "JOB",
        "dvc.stage": stage,
        "latentline.record": record,
        ATTEMPT_TAG: str(attempt),
        **process_tags(),
        **{name: value for name, value in optional.items() if value},
    }


def process_tags() -> dict[str, str]:
    """By these a run whose process died without a word can be told from one that lives."""
    return {"latentline.host": platform.node(), "latentline.pid": str(os.getpid())}


def writer_lives(tags: Mapping[str, str], began: int) -> bool | None:
    """Whether the process that writes a run is alive; None where another host knows.

    Args:
        tags: Of the run, with those of `process_tags`.
        began: When it began, in milliseconds: a process id may be given to a younger one.
    """
    if tags.get("latentline.host") != platform.node():
        return None
    try:
        process = psutil.Process(int(tags["latentline.pid"]))
        started = 1000 * process.create_time()
        return process.status() != psutil.STATUS_ZOMBIE and started <= began + CLOCK_MILLISECONDS
    except (psutil.Error, KeyError, ValueError):
        return False


def user_name() -> str:
    """Login name, or `unknown` where the system has none (containers)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def context_tags() -> dict[str, str]:
    """The tags MLFLOW_RUN_CONTEXT asks for; none if it is not a JSON object."""
    try:
        context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    except ValueError:
        return {}
    if not isinstance(context, dict):
        return {}
    return {str(name): str(value) for name, value in context.items()}


def git_tags(folder: Path = Path()) -> dict[str, str]:
    """The commit, and whether tracked files differ from it; nothing outside git.

    dvc.lock is left out of the comparison: `dvc repro` rewrites it after every stage.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(
        folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock"
    )
    dirty = "unknown" if changed is None else str(bool(changed)).lower()
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        # Optional locks off: a look at the state must not disturb a git that works beside us.
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
