"""The record of a line: stages under their parent, cached ones linked, outages without harm."""

import json
import os
import platform
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.records.line_record import LineRecord, close_lines_of
from stages.core.artifacts import write_json
from stages.core.tracking import open_tracker
from stages.upload_history import deliver_left_journals


class DeliveredAtTheEnd:
    """In place of the process that follows a journal: delivers it here, when it is waited for."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.parents[2]

    def wait(self, timeout: float | None = None) -> int:
        return 0 if deliver_left_journals(self._root, None) else 1

    def poll(self) -> int | None:
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with outputs of every stage but their markers."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "params.yaml").write_text("seed: 0\nprior: {kind: x, rate: 1e-4}\n")
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    for folder in ("runs", "samples", "metrics"):
        (root / "data" / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "data/samples/samples.png")
    write_json(root / "data/metrics/metrics.json", {"fid": 12.5, "note": "words"})
    write_json(root / "data/metrics/figures.json", {"fid": {"value": 12.5}})
    (root / "data/metrics/report.html").write_text("<p>report</p>")
    return root


@pytest.fixture
def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace as working directory, tracking on, journals delivered in this process."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("stages.core.tracking._start_sender", DeliveredAtTheEnd)
    return root


def run_stage_in(
    line: LineRecord, workspace: Path, stage: str, loss: float, collapse: str | None = None
) -> None:
    """What `dvc repro` of a changed stage comes to: a tracked run and its marker."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in line.environment().items():
            patch.setenv(name, value)
        for name in line.removed:
            patch.delenv(name, raising=False)
        work = workspace / ".work" / stage / str(line.run_id)
        work.mkdir(parents=True)
        tracker = open_tracker(stage, work)
        tracker.log_metrics({"loss": 2 * loss}, step=1)
        tracker.log_metrics({"loss": loss}, step=2)
        if collapse:
            tracker.log_tag("collapse", collapse)
        tracker.close("FINISHED")
        write_json(
            workspace / "data" / "runs" / f"{stage}.json", {"stage": stage, **tracker.identity()}
        )


def ask(root: Path, question: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(root / "mlflow.db")
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def pairs(root: Path, table: str, run_id: str | None) -> Mapping[str, Any]:
    return dict(ask(root, f"select key, value from {table} where run_uuid = ?", run_id))


def status(root: Path, run_id: str | None) -> str:
    ((found,),) = ask(root, "select status from runs where run_uuid = ?", run_id)
    return str(found)


def test_a_line_links_executed_and_cached_stages(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LineRecord.open(workspace, "first", {"prefect.flow_run_id": "f1"})
    # A run id left in the environment is nobody's order to continue that run.
    monkeypatch.setenv("MLFLOW_RUN_ID", str(first.run_id))
    run_stage_in(first, workspace, "encode", loss=0.5)
    made = first.stage_finished("encode", 3.0)
    assert made.executed
    assert made.run_id != first.run_id
    assert status(workspace, first.run_id) == "RUNNING"
    child = pairs(workspace, "tags", made.run_id)
    assert child["mlflow.parentRunId"] == first.run_id
    assert child["prefect.flow_run_id"] == "f1"
    assert made.url is not None
    assert made.url.endswith(f"/runs/{made.run_id}")
    first.finish("FINISHED")

    runs = ask(workspace, "select count(*) from runs")
    second = LineRecord.open(workspace, "second", {})
    cached = second.stage_finished("encode", 0.1)
    second.finish("FINISHED")
    assert not cached.executed
    assert (cached.run_id, cached.url) == (made.run_id, made.url)
    assert ask(workspace, "select count(*) from runs") == [(runs[0][0] + 1,)]
    for line, word in ((first, "executed"), (second, "cached")):
        tags = pairs(workspace, "tags", line.run_id)
        assert tags["stage.encode"] == word
        assert tags["stage.encode.run_id"] == made.run_id
        assert tags["stage.encode.url"] == made.url
        metrics = pairs(workspace, "metrics", line.run_id)
        assert metrics["encode.loss"] == 0.5
        assert metrics["fid"] == 12.5
        assert status(workspace, line.run_id) == "FINISHED"


def test_a_line_shows_what_stands_in_the_workspace(workspace: Path) -> None:
    line = LineRecord.open(workspace, "shown", {"preset": "digits"})
    line.finish("FINISHED")
    assert pairs(workspace, "params", line.run_id) == {
        "seed": "0",
        "prior.kind": "x",
        "prior.rate": "0.0001",
    }
    tags = pairs(workspace, "tags", line.run_id)
    assert tags["preset"] == "digits"
    assert len(tags["params.sha256"]) == 64
    files = workspace / "mlartifacts" / "latentline" / str(line.run_id) / "artifacts"
    assert {path.name for path in files.glob("*.*")} == {
        "params.yaml",
        "dvc.lock",
        "metrics.json",
        "figures.json",
        "report.html",
    }
    assert [path.name.split("+")[0] for path in files.glob("images/*.png")] == ["samples~samples"]


def test_a_failed_line_has_no_figures_of_an_earlier_one(workspace: Path) -> None:
    line = LineRecord.open(workspace, "failed", {})
    line.finish("FAILED")
    assert status(workspace, line.run_id) == "FAILED"
    assert "fid" not in pairs(workspace, "metrics", line.run_id)


def test_a_marker_of_another_store_is_linked_there(workspace: Path) -> None:
    marker = {"run_id": "abc", "experiment_id": "7", "record": "r", "line": "other"}
    path = workspace / "data" / "runs" / "prepare.json"
    write_json(path, marker | {"tracking_uri": "https://mlflow.example"})
    line = LineRecord.open(workspace, "foreign", {})
    stage = line.stage_finished("prepare", 1.0)
    line.finish("FINISHED")
    assert not stage.executed
    assert stage.run_id == "abc"
    assert stage.url == "https://mlflow.example/#/experiments/7/runs/abc"


@pytest.mark.parametrize("switched_off", [True, False])
def test_without_a_store_the_line_still_knows_what_ran(
    switched_off: bool,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    if switched_off:
        monkeypatch.setenv("LATENTLINE_TRACKING", "off")
    line = LineRecord.open(workspace, "dark", {})
    assert (line.run_id, line.url) == (None, None)
    path = workspace / "data" / "runs" / "sample.json"
    names = {"run_id": None, "record": None, "tracking_uri": None}
    write_json(path, {**names, "line": line.environment()["LATENTLINE_LINE"]})
    assert line.stage_finished("sample", 1.0).executed
    write_json(path, {**names, "line": "an earlier one"})
    assert not line.stage_finished("sample", 1.0).executed
    line.finish("FINISHED")
    assert capsys.readouterr().err.count("record of this line is incomplete") == (
        0 if switched_off else 1
    )


def test_the_environment_names_the_store_absolutely(workspace: Path) -> None:
    line = LineRecord(workspace)
    environment = line.environment()
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{workspace}/mlflow.db"
    assert json.loads(environment["MLFLOW_RUN_CONTEXT"]) == {}
    assert not set(line.removed) & set(environment)
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_an_alarm_of_a_stage_is_the_lines_too(workspace: Path) -> None:
    line = LineRecord.open(workspace, "alarmed", {})
    alarm = "alarm: 9 of 10 codes are dead at step 3"
    for stage, said, heard in (
        ("encode", "warning: 3 of 10 codes are dead at step 1", None),
        ("train_prior", alarm, alarm),
    ):
        run_stage_in(line, workspace, stage, loss=1.5, collapse=said)
        assert line.stage_finished(stage, 1.0).alarm == heard
    line.finish("FINISHED")
    tags = pairs(workspace, "tags", line.run_id)
    assert tags["stage.train_prior.collapse"] == alarm
    assert "stage.encode.collapse" not in tags


def test_what_a_killed_flow_left_open_is_closed(workspace: Path) -> None:
    lost = LineRecord.open(workspace, "lost", {"prefect.flow_run_id": "killed"})
    other = LineRecord.open(workspace, "other", {"prefect.flow_run_id": "alive"})
    close_lines_of(workspace, "killed")
    assert status(workspace, lost.run_id) == "KILLED"
    assert status(workspace, other.run_id) == "RUNNING"
    other.finish("FINISHED")


def test_a_branch_finds_the_projects_runs(workspace: Path, tmp_path: Path) -> None:
    line = LineRecord.open(workspace, "project", {})
    run_stage_in(line, workspace, "encode", loss=2.5)
    made = line.stage_finished("encode", 1.0)
    line.finish("FINISHED")
    marker = "data/runs/encode.json"
    (tmp_path / marker).parent.mkdir(parents=True)
    (tmp_path / marker).write_bytes((workspace / marker).read_bytes())
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    branch = LineRecord.open(tmp_path, "branch", {}, workspace)
    linked = branch.stage_finished("encode", 0.0)
    branch.finish("FINISHED")
    assert (linked.executed, linked.run_id, linked.url) == (False, made.run_id, made.url)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_line_that_was_killed_goes_on_with_its_record(workspace: Path) -> None:
    receipt = workspace / ".work" / "receipts" / "line.json"
    options: dict[str, Any] = {"experiment": "a sweep", "receipt": receipt}
    first = LineRecord.open(workspace, "branch", {"latentline.sweep": "s"}, **options)
    run_stage_in(first, workspace, "encode", 1.0)
    # Killed here.
    second = LineRecord.open(workspace, "branch", {"prefect.flow_run_id": "2"}, **options)
    assert second.run_id == first.run_id
    assert second.stage_finished("encode", 1.0).executed, "what it did before is its own"
    second.stage_pruned("train_prior", "above the median")
    second.finish("KILLED")
    assert status(workspace, second.run_id) == "KILLED"
    tags = pairs(workspace, "tags", second.run_id)
    assert tags["latentline.pruned"] == "above the median"
    assert tags["stage.train_prior"] == "pruned" and tags["prefect.flow_run_id"] == "2"
    other = LineRecord.open(workspace, "branch", {}, experiment="a sweep")
    assert other.run_id != first.run_id
    other.finish("FINISHED")


def test_what_a_dead_process_left_open_is_ended_by_the_next_line(workspace: Path) -> None:
    line = LineRecord.open(workspace, "living", {})
    assert line.run_id is not None and line._client is not None
    tags = {
        "dead": {"latentline.host": platform.node(), "latentline.pid": "999999999"},
        "elsewhere": {"latentline.host": "another", "latentline.pid": "1"},
        "unknown": {},
    }
    ids = {
        name: line._client.create_run(line._experiment_id, tags=given, run_name=name).info.run_id
        for name, given in tags.items()
    }
    LineRecord.open(workspace, "next", {}).finish("FINISHED")
    status = {
        name: ask(workspace, "select status from runs where run_uuid = ?", run_id)[0][0]
        for name, run_id in {**ids, "living": line.run_id}.items()
    }
    line.finish("FINISHED")
    assert status == {
        "dead": "KILLED",
        "elsewhere": "RUNNING",
        "unknown": "RUNNING",
        "living": "RUNNING",
    }
