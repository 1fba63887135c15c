"""The record of a whole line in MLflow: one parent run over the runs of its stages.

DVC runs no code for a stage that has not changed, so such a stage makes no run, and it should make
none. What it has is its marker `data/runs/STAGE.json`, an output like the others: DVC restores it
with them, so it always names the run that made the bytes that are there. After each stage the line
reads the marker, tags the parent `stage.NAME=executed` or `cached`, links the run, and copies its
last figures.

Nothing here fails the line: what a store refuses is left out, with one warning. (A stage's own
record is kept in a journal instead, because it cannot be made again; this one is a summary of what
stands in the workspace.)
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pipelines.records.dead_runs import end_dead_runs
from pipelines.records.guard import RecordGuard
from pipelines.records.receipt import begun_run, read_receipt, set_tags, write_receipt
from pipelines.records.workspace_tags import workspace_tags
from stages.core.delivery import RECORD_TAG, send_metrics, send_params
from stages.core.provenance import context_tags, process_tags
from stages.core.sections import read_yaml
from stages.core.shown import as_metrics, flat
from stages.core.store import (
    experiment_name,
    open_experiment,
    opened_store,
    portable,
    reason,
    run_url,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking.client import MlflowClient

__all__ = ["LineRecord", "StageRecord", "close_lines_of"]

FILES = (
    "params.yaml",
    "dvc.lock",
    "data/metrics/metrics.json",
    "data/metrics/figures.json",
    "data/metrics/report.html",
)
PICTURES = ("data/samples", "data/metrics")
FIGURES = Path("data/metrics/metrics.json")
PRUNED_TAG = "latentline.pruned"


@final
@dataclass(frozen=True)
class StageRecord:
    """What is known of a stage after its turn in the line."""

    stage: str
    executed: bool
    """Whether this line ran it; else its outputs were there, or came from DVC's cache."""
    run_id: str | None
    """The run that made its outputs."""
    url: str | None
    """Where a browser finds that run."""
    alarm: str | None
    """What it said of collapsed latents, if that was an alarm."""


@final
class LineRecord:
    """The parent run. Made by `open`; without a store it answers the same and records nothing."""

    removed = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
    """Variables a stage must not inherit: MLflow takes them for an order to use that run."""

    def __init__(self, workspace: Path, project: Path | None = None) -> None:
        self._workspace = workspace.resolve()
        self._project = (project or workspace).resolve()
        self._uri = tracking_uri(self._project)
        self._line = uuid.uuid4().hex
        self._context: dict[str, str] = {}
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._guarded = RecordGuard("this line")
        self._experiment = experiment_name()
        self._receipt: Path | None = None
        self.run_id: str | None = None
        """The parent run; None when nothing is tracked."""

    @classmethod
    def open(
        cls,
        workspace: Path,
        name: str,
        tags: Mapping[str, str],
        project: Path | None = None,
        *,
        experiment: str | None = None,
        receipt: Path | None = None,
    ) -> "LineRecord":
        """Begin the record of a line.

        Args:
            workspace: Folder of dvc.yaml.
            name: Name of the run.
            tags: Tags of the run; those of Prefect and DVC are given to the stages' runs too.
            project: Whose store it is, where the workspace is a branch; else the workspace.
            experiment: Name of the MLflow experiment; else the usual one.
            receipt: File that keeps which record it is; if it is there, that record is gone on
                with, and what the line executed before it was killed is its own.
        """
        line = cls(workspace, project)
        line._experiment = experiment or line._experiment
        line._receipt = receipt
        known = read_receipt(receipt, line._uri) if receipt else {}
        line._line = known.get("line") or line._line
        if os.environ.get("LATENTLINE_TRACKING", "").lower() == "off":
            return line
        line._context = context_tags() | {
            name: value for name, value in tags.items() if name.startswith(("prefect.", "dvc."))
        }
        line._keep_receipt(known.get("run_id"))
        with line._guarded():
            own = workspace_tags(line._workspace) | process_tags()
            line._begin(name, {**line._context, **tags, **own}, known.get("run_id"))
        with line._guarded():
            line._log_params()
        return line

    def _begin(self, name: str, tags: Mapping[str, str], known: str | None) -> None:
        with opened_store(self._uri) as client:
            end_dead_runs(client)
            self._experiment_id = open_experiment(
                client, self._uri, self._experiment, self._project
            )
            self.run_id = begun_run(client, self._experiment_id, name, tags, known)
        self._client = client
        self._keep_receipt(self.run_id)
        if known:
            set_tags(client, known, tags)

    def _keep_receipt(self, run_id: str | None) -> None:
        if self._receipt is not None:
            write_receipt(self._receipt, self._uri, line=self._line, run_id=run_id)

    @property
    def url(self) -> str | None:
        """Where a browser finds the run; of a local store, once `mlflow ui` runs."""
        return run_url(self._uri, self._experiment_id, self.run_id) if self.run_id else None

    def environment(self) -> dict[str, str]:
        """Variables to set for DVC, and so for its stages."""
        variables = {
            "MLFLOW_TRACKING_URI": self._uri,
            "MLFLOW_EXPERIMENT_NAME": self._experiment,
            "MLFLOW_RUN_CONTEXT": json.dumps(self._context),
            "LATENTLINE_LINE": self._line,
            # Empty and not absent: a parent inherited from elsewhere is not this line.
            "LATENTLINE_PARENT_RUN_ID": self.run_id or "",
        }
        return variables

    def stage_finished(self, stage: str, seconds: float) -> StageRecord:
        """Note how a stage went, from its marker.

        Args:
            stage: Name in dvc.yaml.
            seconds: How long its turn took.
        """
        marker = _read_json(self._workspace / "data" / "runs" / f"{stage}.json")
        executed = marker.get("line") == self._line
        run: Run | None = None
        with self._guarded():
            run = self._made_by(marker)
        record = StageRecord(
            stage,
            executed,
            run.info.run_id if run else marker.get("run_id"),
            self._link(marker, run),
            _alarm(run),
        )
        with self._guarded():
            self._log_stage(record, seconds, run)
        return record

    def _made_by(self, marker: Mapping[str, Any]) -> "Run | None":
        """The run a marker names, if this store has it."""
        if self._client is None or not marker.get("record"):
            return None
        # A branch has markers of the project's own stages too.
        if marker.get("tracking_uri") not in {
            portable(self._uri, folder) for folder in (self._workspace, self._project)
        }:
            return None
        # By its record and not its id: the id is missing where the store answered late.
        found = self._client.search_runs(
            [marker.get("experiment_id") or self._experiment_id],
            filter_string=f"tags.`{RECORD_TAG}` = '{marker['record']}'",
            max_results=1,
        )
        return found[0] if found else None

    def _link(self, marker: Mapping[str, Any], run: "Run | None") -> str | None:
        if run is not None:
            return run_url(self._uri, run.info.experiment_id, run.info.run_id)
        elsewhere = str(marker.get("tracking_uri") or "")
        if marker.get("run_id") and elsewhere.startswith("http"):
            return run_url(elsewhere, str(marker["experiment_id"]), str(marker["run_id"]))
        return None

    def _log_stage(self, record: StageRecord, seconds: float, run: "Run | None") -> None:
        if self._client is None or self.run_id is None:
            return
        tags = {
            f"stage.{record.stage}": "executed" if record.executed else "cached",
            f"stage.{record.stage}.run_id": record.run_id,
            f"stage.{record.stage}.url": record.url,
            f"stage.{record.stage}.collapse": record.alarm,
        }
        set_tags(self._client, self.run_id, {name: value for name, value in tags.items() if value})
        last = run.data.metrics if run else {}
        figures = {name: value for name, value in last.items() if not name.startswith("system/")}
        self._log_metrics(
            {f"{record.stage}.{name}": value for name, value in figures.items()}
            | {f"{record.stage}.seconds": seconds}
        )

    def stage_pruned(self, stage: str, why: str) -> None:
        """Note that a stage was stopped because the line is hopeless, on the line and on its run.

        Args:
            stage: Name in dvc.yaml.
            why: In one line.
        """
        with self._guarded():
            if self._client is None or self.run_id is None:
                return
            set_tags(self._client, self.run_id, {f"stage.{stage}": "pruned", PRUNED_TAG: why})
            its = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.`dvc.stage` = '{stage}'"
            for run in self._client.search_runs([self._experiment_id], filter_string=its):
                self._client.set_tag(run.info.run_id, PRUNED_TAG, why)

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        if self._client is not None and self.run_id is not None:
            now = time.time_ns() // 1_000_000
            send_metrics(self._client, self.run_id, as_metrics(metrics, step=0, time=now))

    def _log_params(self) -> None:
        if self._client is not None and self.run_id is not None:
            params = read_yaml(self._workspace / "params.yaml")
            send_params(self._client, self.run_id, params)

    def finish(self, status: str) -> None:
        """End the record with what stands in the workspace.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        if self._client is None or self.run_id is None:
            return
        # A line that ended badly has the figures of an earlier one in its workspace, or none.
        if status == "FINISHED":
            with self._guarded():
                self._log_metrics(_numbers(_read_json(self._workspace / FIGURES)))
            with self._guarded():
                self._log_pictures(self._client, self.run_id)
        with self._guarded():
            for name in FILES if status == "FINISHED" else FILES[:2]:
                if (self._workspace / name).is_file():
                    self._client.log_artifact(self.run_id, str(self._workspace / name))
        with self._guarded():
            self._client.set_terminated(self.run_id, status)

    def _log_pictures(self, client: "MlflowClient", run_id: str) -> None:
        from PIL import Image

        for folder in PICTURES:
            for path in sorted((self._workspace / folder).glob("*.png")):
                with Image.open(path) as image:
                    client.log_image(run_id, image, key=f"{path.parent.name}/{path.stem}", step=0)


def _alarm(run: "Run | None") -> str | None:
    said = run.data.tags.get("collapse", "") if run else ""
    return said if said.startswith("alarm") else None


def close_lines_of(root: Path, flow_run_id: str) -> None:
    """End the records that a flow run has left open because its process was killed.

    Args:
        root: The project whose store holds them.
        flow_run_id: Prefect's.
    """
    uri = tracking_uri(root)
    try:
        with opened_store(uri) as client:
            experiments = [found.experiment_id for found in client.search_experiments()]
        is_its = f"tags.`prefect.flow_run_id` = '{flow_run_id}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(experiments, filter_string=is_its):
            client.set_terminated(run.info.run_id, "KILLED")
    except Exception as error:  # MLflow raises what its many transports raise
        print(f"tracking: records left open: {reason(error)}", file=sys.stderr)


def _read_json(path: Path) -> dict[str, Any]:
    """The object a file holds; empty when the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in flat(values).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
