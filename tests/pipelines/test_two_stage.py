"""The flow over a trivial line: what ran, what was restored, what failed, what was tried again."""

import json
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
)
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed
from pydantic import ValidationError

from pipelines.two_stage import LineConfig, LineResult, two_stage, worth_retrying
from pipelines.workspace.reproduce import StageFailed
from stages.core.errors import ParamsError
from tests.pipelines.trivial_line import Line


@pytest.fixture(autouse=True)
def server(api_url: str) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: api_url}):
        yield


def run(line: Line, **config: Any) -> LineResult:
    return two_stage(LineConfig(workspace=str(line.root), retry_delays_seconds=[0.1], **config))


def outcomes(result: LineResult) -> dict[str, str]:
    return {stage.stage: stage.outcome for stage in result.stages}


def latest_run() -> Any:
    with get_client(sync_client=True) as client:
        begun = FlowRunFilter(start_time={"is_null_": False})
        return client.read_flow_runs(flow_run_filter=begun, sort="START_TIME_DESC", limit=1)[0]


def page(flow_run_id: Any) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        return {a.key: a.data for a in client.read_artifacts(artifact_filter=chosen)}


def test_runs_in_order_then_finds_everything_there(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(line)
    assert list(outcomes(first)) == ["first", "second", "third"]
    assert set(outcomes(first).values()) == {"executed"}
    assert [(f.name, f.value, f.better, f.n) for f in first.figures] == [
        ("length", 2.5, "higher", 7)
    ]
    assert line.value("third") == "three 5"
    shown = page(latest_run().id)
    assert "| second | executed |" in shown["stages"]
    assert "| length | 2.5 | cm | higher | 7 |" in shown["figures"]

    with caplog.at_level(logging.INFO):
        again = run(line)
    assert set(outcomes(again).values()) == {"cached"}
    assert caplog.text.count("nothing changed, as DVC sees it") == 3  # asked once, not three times
    assert again.figures == first.figures

    line.set(second="{value: zwei}")
    part = run(line, stages=["second"])
    assert outcomes(part) == {"first": "cached", "second": "executed"}
    assert part.figures == []  # those in the workspace belong to another second stage
    assert set(outcomes(run(line, stages=["first"], force=True)).values()) == {"executed"}


def test_a_mistake_fails_the_flow_in_one_message(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.set(second='{value: two, fail: "params.yaml: value must be small"}')
    with caplog.at_level(logging.INFO), pytest.raises(StageFailed) as caught:
        run(line)
    assert str(caught.value) == "second: params.yaml: value must be small"
    assert "Traceback" not in caplog.text
    assert caplog.text.count("Running stage 'second'") == 1  # not tried again
    ended = latest_run()
    assert ended.state_name == "Failed"
    assert "value must be small" in ended.state.message
    assert "| second | failed |" in page(ended.id)["stages"]


def test_a_collapse_that_stops_and_a_failure_are_told(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    code = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
    monkeypatch.setenv("LATENTLINE_NOTIFY", shlex.join([sys.executable, "-c", code, str(told)]))
    line.set(first='{value: one, fail: "collapse alarm at step 3: 9 of 10 codes are dead"}')
    with pytest.raises(StageFailed):
        run(line)
    collapse, failed = map(json.loads, told.read_text().splitlines())
    assert (collapse["event"], failed["event"]) == ("collapse", "failed")
    for message in (collapse, failed):
        assert "9 of 10 codes are dead" in message["message"]
        assert str(latest_run().id) in message["links"]["prefect"]


def test_an_interrupted_stage_is_tried_again(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.set(first="{value: one, fail_once: 75}")
    with caplog.at_level(logging.INFO):
        result = run(line, stages=["first"])
    assert outcomes(result) == {"first": "executed"}
    assert caplog.text.count("Running stage 'first'") == 2


def test_a_run_and_its_record_link_to_each_other(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking.client import MlflowClient

    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    result = run(line, stages=["first"])
    ended = latest_run()
    shown = page(ended.id)
    client = MlflowClient(tracking_uri=f"sqlite:///{line.root}/mlflow.db")
    [parent] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert result.record_url is not None
    assert parent.info.run_id in result.record_url
    assert result.record_url in shown["mlflow-run"]
    assert parent.data.tags["prefect.flow_run_id"] == str(ended.id)
    assert parent.data.tags["prefect.flow_run_name"] == parent.info.run_name == ended.name
    assert str(ended.id) in parent.data.tags["prefect.flow_run_url"]
    assert parent.data.tags["stage.first"] == "executed"
    assert parent.info.status == "FINISHED"


def test_retry_condition() -> None:
    def failed(worth: bool) -> Any:
        return Failed(data=StageFailed("x", exit_status=1, worth_retrying=worth))

    assert worth_retrying(None, None, failed(True)) is True  # type: ignore[arg-type]
    assert worth_retrying(None, None, failed(False)) is False  # type: ignore[arg-type]
    assert worth_retrying(None, None, Failed(data=OSError())) is False  # type: ignore[arg-type]
    assert worth_retrying(None, None, Completed()) is False  # type: ignore[arg-type]


def test_wrong_configurations_are_refused(line: Line) -> None:
    with pytest.raises(ValidationError):
        LineConfig(stage=["first"])  # type: ignore[call-arg]
    with pytest.raises(ParamsError, match="did you mean 'third'"):
        run(line, stages=["thrd"])


def test_every_field_of_the_form_says_what_it_does() -> None:
    form = two_stage.parameters.model_dump()["definitions"]["LineConfig"]["properties"]
    assert set(form) == set(LineConfig.model_fields)
    assert all(field["description"] for field in form.values())
