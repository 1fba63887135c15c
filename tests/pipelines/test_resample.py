"""New samples come from the models that are there, and the project stays as it is."""

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.resample import ResampleConfig, draw_again
from pipelines.two_stage import LineConfig, LineResult, two_stage
from stages.core.errors import ArtifactError
from tests.pipelines.trivial_line import Line


@pytest.fixture(autouse=True)
def quiet(api_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    accepting = types.ModuleType("stages.params")
    accepting.check = lambda raw, *, source: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stages.params", accepting)
    monkeypatch.setenv("LATENTLINE_TRACKING", "off")
    with temporary_settings({PREFECT_API_URL: api_url}):
        yield


def again(line: Line, first: str, values: Mapping[str, Any]) -> LineResult:
    result: LineResult = flow(draw_again, name="again")(line.root, first, values)
    return result


@pytest.mark.slow
def test_only_what_follows_runs_and_the_project_keeps_everything(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="first: has not run here yet"):
        again(line, "second", {})
    two_stage(LineConfig(workspace=str(line.root)))
    kept = {
        path: path.read_bytes()
        for path in [line.root / "dvc.lock", line.root / "params.yaml", *line.root.glob("data/*/*")]
    }
    result = again(line, "second", {"second.value": "drawn"})
    assert {stage.stage: stage.outcome for stage in result.stages} == {
        "second": "executed",
        "third": "executed",
    }
    assert [figure.name for figure in result.figures] == ["length"]
    branch = line.root / ".work" / "resample"
    assert (branch / "data/second/value.txt").read_text() == "drawn 5"
    assert (branch / "data/first/value.txt").read_text() == line.value("first")
    assert {path: path.read_bytes() for path in kept} == kept
    # The same again costs nothing; other values go on in the same branch.
    assert [s.outcome for s in again(line, "second", {"second.value": "drawn"}).stages] == [
        "cached",
        "cached",
    ]
    line.set(first="{value: other}")
    with pytest.raises(ArtifactError, match=r"first: first of params\.yaml is not what"):
        again(line, "second", {"second.value": "drawn"})


def test_what_is_left_out_stays_as_it_is() -> None:
    config = ResampleConfig(seed=7, classes=[], set={"sampling.top_p": 0.5})
    assert config.values() == {"sampling.seed": 7, "sampling.classes": [], "sampling.top_p": 0.5}
