"""Journals delivered to MLflow.

A delivery reads a journal from where the last one stopped, sends each record, and notes how far it
came after each. It can therefore stop anywhere and be taken up by another process; numbers sent
twice carry their first time stamp, which makes them one point to MLflow. Every journal names its
*record*; the run that shows a record has the tag `latentline.record`, so several journals of one
piece of work (a stage that was killed and ran again) end in one run, whichever arrives first.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from stages.core.journal import read_journal, read_opening
from stages.core.json_files import replace_json
from stages.core.provenance import ATTEMPT_TAG
from stages.core.shown import as_dataset, as_metrics, as_params, safe_name
from stages.core.store import (
    open_experiment,
    opened_store,
    reason,
    tracking_uri,
    without_credentials,
)

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking.client import MlflowClient

__all__ = ["RECORD_TAG", "Delivery", "send_metrics", "send_params"]

RECORD_TAG = "latentline.record"
METRICS_PER_CALL = 1000
"""MLflow's limits; also for the next."""
PARAMS_PER_CALL = 100
REFUSED = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)
"""What a store answers to a record it will never take (or for a run that somebody deleted);
anything else may pass with time."""


@final
class Delivery:
    """One journal on its way to one store.

    Args:
        folder: The journal, in `.work/tracking` of its project.
        uri: Tracking URI to deliver to; None: the one the journal names.

    Raises:
        DamagedJournal: If it is none; `send` raises it, too.
    """

    def __init__(self, folder: Path, uri: str | None) -> None:
        self._folder = folder
        self._root = folder.resolve().parents[2]
        found = read_opening(folder)
        assert found is not None, "what was killed before it had begun is delivered by nobody"
        self._opening, self._begin = found
        self._elsewhere = uri is not None
        self._uri = uri or self._recorded_uri()
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._offset = self._begin
        self._refused = 0
        self.status: str | None = None
        """How the record ended, FINISHED, FAILED or KILLED, once that was delivered."""

    @property
    def closed(self) -> bool:
        """Whether the end of the record was delivered."""
        return self.status is not None

    @property
    def shown_uri(self) -> str:
        """The store, fit to be printed."""
        return without_credentials(self._uri)

    @property
    def tags(self) -> dict[str, str]:
        """What the writer said of itself."""
        return dict(self._opening["tags"])

    @property
    def began(self) -> int:
        """When the writer opened the journal, in milliseconds."""
        return int(self._opening["time"])

    def _recorded_uri(self) -> str:
        # A journal holds no password; the environment may.
        recorded = str(self._opening["tracking_uri"])
        here = tracking_uri(self._root)
        return here if without_credentials(here) == recorded else recorded

    def connect(self) -> tuple[str, str]:
        """Open the store and find or make the run: (tracking URI, run id).

        Raises:
            Exception: Whatever MLflow raises when the store does not answer.
        """
        if self._client is None:
            with opened_store(self._uri) as client:
                run = self._find_run(client) or self._create_run(client)
            self._client, self._run_id = client, run.info.run_id
            self._offset = self._sent_before() or self._begin
            self._write_receipt(run)
        return self._uri, self._run_id

    def _find_run(self, client: "MlflowClient") -> "Run | None":
        experiment = open_experiment(client, self._uri, self._opening["experiment"], self._root)
        record = self._opening["record"]
        found = client.search_runs(
            [experiment], filter_string=f"tags.`{RECORD_TAG}` = '{record}'", max_results=1
        )
        if not found:
            return None
        run = found[0]
        if self._is_latest(run):
            # The work goes on, perhaps as part of another line and in another process.
            client.log_batch(run.info.run_id, tags=_tag_entities(self.tags))
            client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _is_latest(self, run: "Run") -> bool:
        """Whether the run shows no later attempt at the work than this journal tells of."""
        return int(run.data.tags.get(ATTEMPT_TAG, 0)) <= int(self.tags.get(ATTEMPT_TAG, 0))

    def _create_run(self, client: "MlflowClient") -> "Run":
        experiment = open_experiment(client, self._uri, self._opening["experiment"], self._root)
        return client.create_run(
            experiment, start_time=self.began, tags=self.tags, run_name=self._opening["stage"]
        )

    def _sent_before(self) -> int | None:
        try:
            sent = json.loads((self._folder / "sent.json").read_text())
        except (OSError, ValueError):
            return None
        return sent["offset"] if sent["run_id"] == self._run_id else None

    def _note_sent(self, offset: int) -> None:
        self._offset = offset
        replace_json(self._folder / "sent.json", {"run_id": self._run_id, "offset": offset})

    def _write_receipt(self, run: "Run") -> None:
        """Tell the work folder its run id, if the folder still waits for one."""
        receipt = Path(self._opening["receipt"])
        try:
            known = json.loads(receipt.read_text())
            if known["record"] == self._opening["record"] and not self._elsewhere:
                known |= {"run_id": self._run_id, "experiment_id": run.info.experiment_id}
                replace_json(receipt, known)
        except (OSError, ValueError):
            return

    def send(self) -> None:
        """Send what the journal holds and the store does not.

        Raises:
            Exception: Whatever MLflow raises when the store does not answer; what was sent before
                is noted, and the next call goes on from there.
        """
        self.connect()
        numbers: list[Metric] = []
        reached = self._offset
        for record, offset in read_journal(self._folder, self._offset):
            if record["kind"] == "metrics":
                numbers += as_metrics(record["metrics"], record["step"], record["time"])
                reached = offset
                if len(numbers) < METRICS_PER_CALL:
                    continue
            self._send_numbers(numbers, reached)
            numbers = []
            if record["kind"] == "close":
                self.end(record["status"], record["time"])
            elif record["kind"] != "metrics":
                self._deliver(lambda record=record: self._send_record(record))
            self._note_sent(offset)
            reached = offset
        self._send_numbers(numbers, reached)

    def _send_numbers(self, numbers: "list[Metric]", reached: int) -> None:
        if numbers:
            self._deliver(lambda: send_metrics(self._store(), self._run_id, numbers))
            self._note_sent(reached)

    def _deliver(self, call: Callable[[], None]) -> None:
        """Make one call; a record the store will never take is left out, and said so once."""
        from mlflow.exceptions import MlflowException
        from PIL import UnidentifiedImageError

        try:
            call()
        except (FileNotFoundError, UnidentifiedImageError) as error:
            self._leave_out(error)
        except MlflowException as error:
            if error.error_code not in REFUSED:
                raise
            self._leave_out(error)

    def _leave_out(self, error: Exception) -> None:
        self._refused += 1
        if self._refused == 1:
            print(f"tracking: a record was left out: {reason(error)}", file=sys.stderr)

    def _send_record(self, record: dict[str, Any]) -> None:
        match record["kind"]:
            case "params":
                send_params(self._store(), self._run_id, record["params"])
            case "tag":
                self._store().set_tag(self._run_id, record["name"], record["value"])
            case "image":
                self._send_image(record)
            case "file":
                self._store().log_artifact(self._run_id, str(self._folder / record["file"]))
            case "input":
                dataset = as_dataset(record["name"], record["digest"], record["path"])
                self._store().log_inputs(self._run_id, datasets=[dataset])
            case "model":
                self._send_model(record)

    def _send_image(self, record: dict[str, Any]) -> None:
        from PIL import Image

        with Image.open(self._folder / record["file"]) as image:
            self._store().log_image(
                self._run_id,
                image,
                key=safe_name(record["key"]),
                step=record["step"],
                timestamp=record["time"],
            )

    def _send_model(self, record: dict[str, Any]) -> None:
        """An external model: MLflow knows name, digest and place, DVC has the bytes."""
        from mlflow.entities import LoggedModelOutput
        from mlflow.models.utils import get_external_mlflow_model_spec

        client = self._store()
        model = client.create_logged_model(
            client.get_run(self._run_id).info.experiment_id,
            name=record["name"],
            source_run_id=self._run_id,
            tags={
                "dvc.path": record["path"],
                "digest": record["digest"],
                "mlflow.model.isExternal": "true",
            },
        )
        with tempfile.TemporaryDirectory() as folder:
            get_external_mlflow_model_spec(model).save(str(Path(folder, "MLmodel")))
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step=0)])

    def end(self, status: str, time: int) -> None:
        """End the run, unless a later attempt at the same work has ended it already.

        Args:
            status: FINISHED, FAILED or KILLED.
            time: When, in milliseconds.
        """

        def end_if_latest() -> None:
            client = self._store()
            if self._is_latest(client.get_run(self._run_id)):
                client.set_terminated(self._run_id, status, end_time=time)

        self._deliver(end_if_latest)
        self.status = status

    def _store(self) -> "MlflowClient":
        assert self._client is not None, "connect() comes first"
        return self._client


def send_params(client: "MlflowClient", run_id: str, params: dict[str, Any]) -> None:
    """Log parameters, nested sections as dotted names, in as few calls as MLflow allows."""
    entities = as_params(params)
    for begin in range(0, len(entities), PARAMS_PER_CALL):
        client.log_batch(run_id, params=entities[begin : begin + PARAMS_PER_CALL])


def send_metrics(client: "MlflowClient", run_id: str, metrics: "list[Metric]") -> None:
    """Log numbers in as few calls as MLflow allows."""
    for begin in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[begin : begin + METRICS_PER_CALL])


def _tag_entities(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in tags.items()]
