"""Any line again from what its record says, byte for byte: `python -m pipelines reproduce RUN_ID`.

    commit (tag)  +  params.yaml, dvc.lock (artifacts)  ->  clone  ->  dvc repro  ->  same md5?

The clone, `.work/reproduce/RUN_ID`, has a DVC cache of its own that begins empty, so nothing in it
can be restored: every output that is compared was computed there. Compared is dvc.lock with
dvc.lock, output by output, for the stages of that line; what a stage reads from outside the line
(data of the user) is compared too, since other data explain other bytes. `data/runs` is left out:
which run made the bytes differs by its nature.

An interrupted rebuild goes on where it was; a finished one is begun anew.
"""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipelines.records.needed_store import needed_store
from pipelines.records.recorded_files import recorded_text
from pipelines.records.workspace_tags import CODE_CHANGED
from pipelines.workspace.branches import make_branch
from pipelines.workspace.clones import require_repository
from pipelines.workspace.lock import hold
from stages.core.errors import ArtifactError
from stages.core.sections import read_yaml
from stages.core.store import reason, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking.client import MlflowClient

__all__ = ["Compared", "compare_locks", "rebuild"]

VERDICT = "latentline.reproduced"
"""Tag of the run: `equal`, or what was unlike."""


@dataclass(frozen=True)
class Compared:
    """One output of a stage, or one input from outside the line."""

    stage: str
    path: str
    kind: str
    """`output` or `input`."""
    recorded: str | None
    """Its md5 as DVC writes it; None where it was not there."""
    here: str | None

    @property
    def equal(self) -> bool:
        """Whether the bytes are the same."""
        return self.recorded == self.here


@dataclass(frozen=True)
class _Recorded:
    """What the record says."""

    commit: str
    params: str
    lock: dict[str, Any]
    stages: list[str]


def rebuild(root: Path, run_id: str, log: Callable[[str], None]) -> list[Compared]:
    """Run a recorded line again and compare its bytes.

    Args:
        root: Of the project.
        run_id: MLflow's, of a line (the parent run).
        log: Told what happens.

    Returns:
        One entry for each output and each input.

    Raises:
        ArtifactError: If there is no such line, it did not finish, its code was not committed, or
            the commit is gone.
        BranchFailed: If a stage fails now.
        LatentlineError: If the store cannot be opened, or no clone can be made of the project.
    """
    uri = tracking_uri(root)
    with needed_store(uri) as client:
        pass
    require_repository(root)
    recorded = _read(client, _line(client, run_id), root)
    folder = root / ".work" / "reproduce" / run_id
    with hold(folder.with_name(f"{run_id}.lock"), "python -m pipelines reproduce", log):
        done = folder / ".work" / "compared"
        if done.is_file():
            shutil.rmtree(folder)
        log(f"commit {recorded.commit[:12]}, {', '.join(recorded.stages)}, in {folder}")
        cache = folder / ".dvc" / "cache"
        branch = make_branch(
            root, folder, recorded.params, "reproduce", commit=recorded.commit, cache=cache
        )
        said = folder / ".work" / "reproduce.log"
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("a", encoding="utf-8") as file:

            def hear(line: str) -> None:
                file.write(f"{line}\n")
                file.flush()
                if line.startswith("Running stage"):
                    log(line.rstrip(":"))

            branch.python(
                "dvc", "--wait-for-lock", "repro", *recorded.stages, log=hear, tracked=False
            )
        here = read_yaml(folder / "dvc.lock")
        compared = compare_locks(recorded.lock, here, recorded.stages, root)
        done.touch()
    unlike = [each.path for each in compared if not each.equal]
    client.set_tag(run_id, VERDICT, f"unlike: {', '.join(unlike)}" if unlike else "equal")
    return compared


def compare_locks(
    recorded: Mapping[str, Any], here: Mapping[str, Any], stages: list[str], root: Path
) -> list[Compared]:
    """Two dvc.lock: outputs of the stages, and what the stages read that no stage of them wrote.

    Code is not among it: it is the commit's.

    Args:
        recorded: Content of the one.
        here: Content of the other.
        stages: Which stages.
        root: Of the project: a branch names the user's data absolutely.
    """
    both = [lock.get("stages") or {} for lock in (recorded, here)]
    outputs = {
        path for lock in both for stage in lock.values() for path in _sums(stage, "outs", root)
    }
    found = []
    for stage in stages:
        for kind, field in (("output", "outs"), ("input", "deps")):
            old, new = (_sums(lock.get(stage, {}), field, root) for lock in both)
            for path in sorted(old | new):
                is_marker = path.startswith("data/runs/")
                is_made = kind == "input" and (path in outputs or path.startswith("stages/"))
                if not is_marker and not is_made:
                    found.append(Compared(stage, path, kind, old.get(path), new.get(path)))
    return found


def _sums(stage: Mapping[str, Any], field: str, root: Path) -> dict[str, str]:
    found = {}
    for entry in stage.get(field) or []:
        path = Path(entry["path"])
        if path.is_relative_to(root):
            path = path.relative_to(root)
        found[path.as_posix()] = str(entry.get("md5"))
    return found


def _line(client: "MlflowClient", run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise ArtifactError(
            f"reproduce: {run_id!r} must be the id of a line's run in MLflow: {reason(error)}"
        ) from None
    tags = run.data.tags
    if tags.get("mlflow.source.name") != "pipelines":
        parent = tags.get("mlflow.parentRunId")
        hint = f"; its line is {parent}" if parent else ""
        raise ArtifactError(f"reproduce: run {run_id} must be that of a whole line{hint}")
    if run.info.status != "FINISHED":
        raise ArtifactError(
            f"reproduce: run {run_id} must have finished; it is {run.info.status}, so there is "
            "nothing to compare with"
        )
    changed = tags.get(CODE_CHANGED, tags.get("git.dirty", "unknown"))
    if changed != "false":
        raise ArtifactError(
            f"reproduce: the code of run {run_id} must be that of a commit; it ran with changes "
            f"that were not committed ({CODE_CHANGED}: {changed}), which nobody has kept"
        )
    return run


def _read(client: "MlflowClient", run: "Run", root: Path) -> _Recorded:
    run_id, tags = run.info.run_id, run.data.tags
    commit = tags.get("mlflow.source.git.commit", "")
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=root, capture_output=True
    )
    if known.returncode != 0:
        raise ArtifactError(
            f"reproduce: commit {commit or '(none)'} of run {run_id} must be in this repository; "
            "fetch the branch it was made on, if it still is on one"
        )
    params = recorded_text(client, run_id, "params.yaml")
    lock = YAML(typ="safe", pure=True).load(recorded_text(client, run_id, "dvc.lock"))
    stages = [stage for stage in lock.get("stages") or {} if f"stage.{stage}" in tags]
    if not stages:
        raise ArtifactError(f"reproduce: run {run_id} has no stage in its dvc.lock")
    return _Recorded(commit, params, lock, stages)
