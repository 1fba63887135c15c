"""What a killed DVC leaves in its way, and how it is removed.

    .dvc/tmp/rwlock    who reads and writes which path; written in place, so a kill in the middle
                       leaves half of it, and DVC then refuses every command. DVC forgets entries of
                       processes that are gone by itself, but takes any process that has got the
                       number of one meanwhile for it (after a restart of the machine, often).
    dvc.lock           the line's state; written in place too

Nothing is lost with them: DVC finds in its run cache what a stage with these inputs has given.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.workspace.lock import try_lock

__all__ = ["mend_dvc"]

GUARD_SECONDS = 10.0


def mend_dvc(workspace: Path, log: Callable[[str], None]) -> bool:
    """Remove what keeps DVC from working though nobody else works there.

    Args:
        workspace: Folder of dvc.yaml; no other run of ours may be in it.
        log: Told what was done.

    Returns:
        Whether something was mended, so that another try is worth while.
    """
    return any([_mend_rwlock(workspace, log), _mend_lock_file(workspace, log)])


def _mend_rwlock(workspace: Path, log: Callable[[str], None]) -> bool:
    path = workspace / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return False
    with path.with_name("rwlock.lock").open("a") as guard:
        if not _taken(guard.fileno()):
            return False
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            kept = _without_strangers(held)
        except (ValueError, KeyError, TypeError, AttributeError):
            path.unlink()
            log(f"{path}: half-written by a DVC that was killed; removed")
            return True
        if kept == held:
            return False
        path.write_text(json.dumps(kept), encoding="utf-8")
        log(f"{path}: entries of processes that are no DVC removed")
        return True


def _taken(guard: int) -> bool:
    """Whether DVC's own guard of the file could be had; it is held for an instant only."""
    deadline = time.monotonic() + GUARD_SECONDS
    while not try_lock(guard):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _without_strangers(held: dict[str, Any]) -> dict[str, Any]:
    writers = {path: info for path, info in held.get("write", {}).items() if _is_dvc(info["pid"])}
    readers = {
        path: [info for info in infos if _is_dvc(info["pid"])]
        for path, infos in held.get("read", {}).items()
    }
    return {"write": writers, "read": {path: infos for path, infos in readers.items() if infos}}


def _is_dvc(pid: int) -> bool:
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def _mend_lock_file(workspace: Path, log: Callable[[str], None]) -> bool:
    path = workspace / "dvc.lock"
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (YAMLError, UnicodeDecodeError):
        content = None
    # A file cut between two lines may still be YAML.
    stages = content.get("stages") if isinstance(content, dict) else None
    if isinstance(stages, dict) and all(_is_whole(stage) for stage in stages.values()):
        return False
    aside = workspace / ".work" / "dvc.lock.damaged"
    aside.parent.mkdir(exist_ok=True)
    path.replace(aside)
    log(f"{path}: damaged, kept as {aside}; DVC finds the results in its cache")
    return True


def _is_whole(stage: Any) -> bool:
    entries = [*stage.get("deps", []), *stage.get("outs", [])] if isinstance(stage, dict) else [{}]
    # A path and a checksum at least, of whatever kind.
    return all(isinstance(entry, dict) and "path" in entry and len(entry) > 1 for entry in entries)
