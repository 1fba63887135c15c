"""What a killed line leaves: runs that nobody will end, history that nobody has sent.

A process that is killed outright cannot say so. Whoever runs next says it: a run of MLflow that is
open and names a process of this machine that is gone is ended as KILLED (the work behind it may go
on in it, which opens it again), and journals that could not be delivered are delivered.
"""

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.workspace.runner import CommandTimeout, run_command
from stages.core.journal import journal_folders
from stages.core.provenance import writer_lives

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["deliver_history", "end_dead_runs"]

PATIENCE_SECONDS = 300.0
MOST = 1000


def end_dead_runs(client: "MlflowClient") -> list[str]:
    """End the open runs of this machine whose process is gone.

    Args:
        client: Of the store.

    Returns:
        Their ids.

    Raises:
        Exception: Whatever MLflow raises when the store does not answer.
    """
    experiments = [found.experiment_id for found in client.search_experiments()]
    here = f"attributes.status = 'RUNNING' and tags.`latentline.host` = '{platform.node()}'"
    ended = []
    for run in client.search_runs(experiments, filter_string=here, max_results=MOST):
        if writer_lives(run.data.tags, run.info.start_time) is False:
            client.set_terminated(run.info.run_id, "KILLED")
            ended.append(run.info.run_id)
    return ended


def deliver_history(
    workspace: Path, environment: Mapping[str, str], log: Callable[[str], None]
) -> None:
    """Send what the stages of a workspace have recorded and no store has taken yet.

    Args:
        workspace: Folder of dvc.yaml.
        environment: Of the stages.
        log: Told what became of it.
    """
    if not journal_folders(workspace):
        return
    command = [sys.executable, "-W", "ignore", "-m", "stages.upload_history"]
    try:
        run_command(command, log, cwd=workspace, env=environment, timeout=PATIENCE_SECONDS)
    except CommandTimeout:
        log("history is kept in .work/tracking; the next run tries again")
