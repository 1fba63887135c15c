"""A line's models as one that MLflow serves: packed from DVC's bytes, kept with the line's run.

    params.yaml, dvc.lock (artifacts of the run)  ->  dvc checkout  ->  python -m stages.pack_model

DVC has the bytes of every line, and a stage's run in MLflow has no weights. The model that a
champion becomes is the one exception: it is small, there are few, and `models:/NAME@ALIAS` means
nothing to MLflow unless the files are in its own store. What is packed are the bytes that dvc.lock
names, whatever stands in the workspace by now.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.records.recorded_files import recorded_text
from pipelines.workspace.branches import make_branch
from pipelines.workspace.lock import hold
from pipelines.workspace.runner import run_command
from stages.core.errors import ArtifactError
from stages.core.sections import load_yaml
from stages.core.store import experiment_name

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking.client import MlflowClient

__all__ = ["served_model"]

MADE_BY = ("train_autoencoder", "train_prior", "train_judge")
"""Stages whose outputs a model may hold."""


def served_model(
    root: Path, client: "MlflowClient", run: "Run", name: str, log: Callable[[str], None]
) -> str:
    """Id of the model in MLflow that draws what this line draws; packed if it is not there yet.

    Args:
        root: Of the project.
        client: Its store.
        run: Of the line.
        name: Of the model.
        log: Told what happens.

    Raises:
        LatentlineError: If the run does not say what it was made of, or DVC has not its bytes.
    """
    from mlflow.entities import LoggedModelStatus

    run_id = run.info.run_id
    # Left by a promotion that was interrupted.
    found = client.search_logged_models(
        [run.info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
    )
    for model in found:
        # Not in the filter: stores keep the status as a number, and no word is equal to it.
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
    work = root / ".work" / "pack"
    with hold(work.with_name("pack.lock"), "packing a model", log):
        folder = _packed(root, client, run, work, log)
        model = client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=run_id, model_type="pyfunc"
        )
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        shutil.rmtree(folder)
    return str(model.model_id)


def _packed(
    root: Path, client: "MlflowClient", run: "Run", work: Path, log: Callable[[str], None]
) -> Path:
    run_id = run.info.run_id
    params = recorded_text(client, run_id, "params.yaml")
    lock = recorded_text(client, run_id, "dvc.lock")
    locked = load_yaml(lock, f"dvc.lock of run {run_id}")["stages"]
    made = [stage for stage in MADE_BY if stage in locked]
    if missing := set(MADE_BY[:2]) - set(made):
        raise ArtifactError(f"run {run_id} has no {' and no '.join(sorted(missing))} in dvc.lock")
    commit = run.data.tags.get("mlflow.source.git.commit", "HEAD")
    branch = make_branch(root, work / "line", params, experiment_name(), commit=commit)
    (branch.folder / "dvc.lock").write_text(lock, encoding="utf-8")
    branch.python("dvc", "--wait-for-lock", "checkout", "--force", *made, log=lambda line: None)
    folder = work / "model"
    shutil.rmtree(folder, ignore_errors=True)
    places = {"--data": branch.folder / "data", "--params": branch.folder / "params.yaml"}
    options = [str(word) for pair in places.items() for word in pair]
    command = [sys.executable, "-m", "stages.pack_model", *options, "--out", str(folder)]
    # The project's own code, which may be newer than the line's: it refuses what it cannot read.
    done = run_command(command, lambda line: None, cwd=root, env={**os.environ})
    if done.status != 0:
        said = "\n".join(line for line in done.tail[-10:] if line)
        raise ArtifactError(f"run {run_id} cannot be packed as a model:\n{said}")
    return folder
