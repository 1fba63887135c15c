"""What the copy of the report that is kept with its run says of that run.

Commit, run and DVC's hashes are no inputs of the stage: an output that held them would change where
nothing that was judged has changed. So they are added to the copy in MLflow alone.
"""

from collections.abc import Mapping
from pathlib import Path

from stages.core.errors import ParamsError
from stages.core.provenance import git_tags
from stages.core.sections import read_yaml
from stages.core.store import run_url

__all__ = ["this_run"]

LOCK = Path("dvc.lock")


def this_run(identity: Mapping[str, str | None], inputs: list[Path]) -> dict[str, str]:
    """Name -> text; what is not known is left out.

    Args:
        identity: Of the tracked run, as `Tracker.identity` has it.
        inputs: Folders the stage reads.
    """
    found = {}
    git = git_tags()
    if git:
        dirty = git["git.dirty"]
        changed = {"false": "", "true": ", with changes that are not committed"}
        found["commit"] = git["mlflow.source.git.commit"] + changed.get(
            dirty, ", changes since unknown"
        )
    run_id, experiment = identity.get("run_id"), identity.get("experiment_id")
    if run_id and experiment:
        found["run"] = run_url(identity.get("tracking_uri") or "", experiment, run_id)
    if identity.get("record"):
        found["record"] = str(identity["record"])
    hashes = _dvc_hashes(LOCK)
    return found | {f"DVC {path}": hashes[str(path)] for path in inputs if str(path) in hashes}


def _dvc_hashes(lock: Path) -> dict[str, str]:
    """Path -> md5 of every output in dvc.lock; empty without one."""
    try:
        stages = read_yaml(lock)["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    except (ParamsError, KeyError, TypeError, AttributeError):
        return {}
