"""Nothing changed: a run that says so and has no record. Something changed: the line, and why."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines import two_stage as two_stage_module
from pipelines.records.line_record import LineRecord
from pipelines.refresh import refresh
from pipelines.settings.line_config import StagesConfig
from pipelines.two_stage import LineResult
from pipelines.workspace.changes import out_of_date
from pipelines.workspace.reproduce import reproduce, stage_environment
from stages.core.errors import LatentlineError
from tests.pipelines.test_two_stage import page
from tests.pipelines.trivial_line import Line


@pytest.fixture
def reasons(api_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Reasons of the records that were opened."""
    found: list[str] = []

    class Watched:
        @staticmethod
        def open(workspace: Path, name: str, tags: Mapping[str, str]) -> LineRecord:
            found.append(tags["latentline.reason"])
            return LineRecord.open(workspace, name, tags)

    monkeypatch.setattr(two_stage_module, "LineRecord", Watched)
    monkeypatch.setenv("LATENTLINE_TRACKING", "off")
    with temporary_settings({PREFECT_API_URL: api_url}):
        yield found


def run(line: Line) -> Any:
    return refresh(StagesConfig(workspace=str(line.root)), return_state=True)


def test_it_runs_what_changed_and_else_says_that_nothing_did(
    line: Line, reasons: list[str]
) -> None:
    before = (line.root / "params.yaml").read_text()
    first = run(line)
    assert isinstance(first.result(), LineResult)
    assert len(reasons) == 1

    again = run(line)
    assert again.is_completed()
    assert again.message == "nothing changed: 3 stages are up to date"
    assert len(reasons) == 1
    assert page(again.state_details.flow_run_id) == {"changes": again.message}
    assert (line.root / "params.yaml").read_text() == before

    line.set(second="{value: else}")
    changed = run(line)
    assert [stage.outcome for stage in changed.result().stages] == [
        "cached",
        "executed",
        "executed",
    ]
    assert reasons[1:] == ["second: params.yaml second modified"]
    assert "second modified" in page(changed.state_details.flow_run_id)["changes"]


def test_what_dvc_says_of_data_code_and_outputs(line: Line) -> None:
    environment = stage_environment({}, [])
    stages = ["first", "second", "third"]
    # A stage that never ran misses its outputs.
    assert "output data/third deleted" in out_of_date(line.root, stages, environment)["third"]
    reproduce("first", line.root, print, environment=environment, timeout_minutes=5, force=False)
    assert out_of_date(line.root, ["first"], environment) == {}
    script = line.root / "stage.py"
    script.write_text(script.read_text() + "\n")
    assert out_of_date(line.root, ["first"], environment) == {"first": ["stage.py modified"]}
    (line.root / "dvc.yaml").write_text("stages: 3")
    with pytest.raises(LatentlineError, match="dvc status failed"):
        out_of_date(line.root, stages, environment)
