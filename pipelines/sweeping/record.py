"""The record of a sweep in MLflow: one run over those of its branches, and they over their stages'.

    sweep NAME          parameters: axes, values under all branches;  metrics: best objective,
                        counts;  table and picture
      NAME-1f2e3d4c     a branch: the record of its line (`pipelines.records.line_record`)
        train_prior     the stages it has executed; what it shares with others is linked

The file of a sweep has an MLflow experiment of its own, `sweep FILE`: branches are compared there,
those under other values too (NAME is then `FILE+seed=1`), and `promote`, which looks at the newest
line, does not take one of them for a line of the workspace.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pipelines.records.guard import RecordGuard
from pipelines.records.receipt import begun_run, read_receipt, set_tags, write_receipt
from pipelines.records.workspace_tags import workspace_tags
from stages.core.delivery import send_metrics, send_params
from stages.core.shown import as_metrics
from stages.core.store import open_experiment, opened_store, run_url, tracking_uri

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["SweepRecord"]


@final
class SweepRecord:
    """The run of a sweep; without a store it answers the same and records nothing.

    Args:
        root: Of the project.
        file: Name of the sweep's file.
        name: Under which its results stand.
        folder: Of its state; a sweep that goes on goes on with its record.
    """

    def __init__(self, root: Path, file: str, name: str, folder: Path) -> None:
        self.experiment = f"sweep {file}"
        """Of MLflow."""
        self.run_id: str | None = None
        self._root, self._name = root, name
        self._receipt = folder / "record.json"
        self._uri = tracking_uri(root)
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._guarded = RecordGuard("this sweep")

    @property
    def url(self) -> str | None:
        """Where a browser finds it."""
        return run_url(self._uri, self._experiment_id, self.run_id) if self.run_id else None

    @property
    def branch_tags(self) -> dict[str, str]:
        """Tags that make a branch's run one of this sweep."""
        parent = {"mlflow.parentRunId": self.run_id} if self.run_id else {}
        return {"latentline.sweep": self._name, **parent}

    def begin(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the record, or go on with it.

        Args:
            params: What is searched.
            tags: Of the run.
        """
        if os.environ.get("LATENTLINE_TRACKING", "").lower() == "off":
            return
        with self._guarded():
            known = read_receipt(self._receipt, self._uri).get("run_id")
            its = {"latentline.sweep": self._name, **workspace_tags(self._root), **tags}
            with opened_store(self._uri) as client:
                self._experiment_id = open_experiment(
                    client, self._uri, self.experiment, self._root
                )
                self.run_id = begun_run(
                    client, self._experiment_id, f"sweep {self._name}", its, known
                )
            self._client = client
            write_receipt(self._receipt, self._uri, run_id=self.run_id)
            if known:
                set_tags(client, known, its)
        with self._guarded():
            if self._client is not None and self.run_id is not None and not known:
                send_params(self._client, self.run_id, dict(params))

    def finish(self, status: str, metrics: Mapping[str, float], files: list[Path]) -> None:
        """End it.

        Args:
            status: FINISHED, FAILED or KILLED.
            metrics: How many branches, and the best.
            files: Table and picture.
        """
        if self._client is None or self.run_id is None:
            return
        with self._guarded():
            now = time.time_ns() // 1_000_000
            send_metrics(self._client, self.run_id, as_metrics(metrics, step=0, time=now))
            for path in files:
                self._client.log_artifact(self.run_id, str(path))
        with self._guarded():
            self._client.set_terminated(self.run_id, status)
