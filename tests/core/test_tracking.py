"""The record of a stage: complete in the store, kept where there is none, never in the way."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core.journal import journal_folders
from stages.core.shown import as_params, flat, safe_name
from stages.core.store import portable, reason, run_url, tracking_uri, without_credentials
from stages.core.tracking import NullTracker, Tracker, open_tracker
from stages.upload_history import _deliver_left, _is_left
from stages.upload_history import main as upload_history
from tests.waiting import wait_until

wait_for = partial(wait_until, seconds=60.0)
NOBODY = "http://127.0.0.1:9"
SOURCES = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose store is made once, by four processes at the same time."""
    root = tmp_path_factory.mktemp("project")
    program = """
        from pathlib import Path
        from stages.core.tracking import open_tracker
        import sys
        work = Path(".work", sys.argv[1]); work.mkdir(parents=True)
        tracker = open_tracker(sys.argv[1], work)
        tracker.log_metrics({"number": float(sys.argv[2])}, step=1)
        tracker.close("FINISHED")
        assert tracker.identity()["run_id"], "not delivered in time"
    """
    running = [run_python(root, program, f"racer{n}", str(n)) for n in range(4)]
    assert [process.wait(timeout=200) for process in running] == [0, 0, 0, 0]
    return root


def run_python(root: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "LATENTLINE_TRACKING": "on"}
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.Popen(command, cwd=root, env=environment)


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as working directory, with tracking on."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield project
    assert journal_folders(project) == []


def upload_history_of(folder: Path) -> bool:
    """Deliver one journal and no other."""
    return _deliver_left(folder, None)


def ask(root: Path, question: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(root / "mlflow.db")
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def tags_of(root: Path, run_id: str) -> dict[str, str]:
    return dict(ask(root, "select key, value from tags where run_uuid = ?", run_id))


def work_folder(root: Path, name: str) -> Path:
    folder = root / ".work" / "stage" / name
    folder.mkdir(parents=True)
    return folder


def test_four_processes_may_make_a_fresh_store_together(project: Path) -> None:
    made = ask(
        project,
        "select r.name, m.value, r.status from runs r join metrics m on m.run_uuid = r.run_uuid",
    )
    assert sorted(made) == [(f"racer{n}", float(n), "FINISHED") for n in range(4)]
    assert ask(project, "select count(*) from experiments where name = 'latentline'") == [(1,)]


def log_one_of_each(tracker: Tracker, inside: Path) -> None:
    tracker.log_params({"seed": 0, "prior": {"kind": "x", "rates": [1e-4, 1]}})
    tracker.log_tag("collapse", "warning: 3 of 4 codes are dead")
    tracker.log_tag("collapse", "alarm: 4 of 4 codes are dead")
    for step in range(1500):
        tracker.log_metrics({"loss": 1.0 / (step + 1), "b\u00e4d:name": 1.0}, step=step)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(inside / "grid.png")
    tracker.log_image(inside / "grid.png", "samples", step=3)
    (inside / "history.csv").write_text("a,b\n")
    tracker.log_file(inside / "history.csv")
    # What was logged is a copy: the stage may go on and change its files.
    (inside / "grid.png").unlink()
    tracker.log_input("latents", "ab" * 32, Path("data/latents"))
    tracker.log_model("prior", Path("data/prior"), "cd" * 32)


def test_a_run_shows_all_that_was_logged(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLINE_PARENT_RUN_ID", "0" * 32)
    monkeypatch.setenv("LATENTLINE_LINE", "line-7")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"prefect.flow_run_id": "f1"}))
    other = ask(inside, "select run_uuid, name, status from runs limit 1")[0]
    monkeypatch.setenv("MLFLOW_RUN_ID", other[0])
    tracker = open_tracker("train_prior", work_folder(inside, "whole"))
    log_one_of_each(tracker, inside)
    tracker.close("FINISHED")

    identity = tracker.identity()
    run = str(identity["run_id"])
    assert run != other[0]
    assert identity["parent_run_id"] == "0" * 32
    assert identity["line"] == "line-7"
    assert identity["tracking_uri"] == "sqlite:///mlflow.db"
    # The run MLFLOW_RUN_ID names is neither renamed nor continued.
    assert ask(inside, "select run_uuid, name, status from runs where run_uuid = ?", other[0]) == [
        other
    ]
    assert ask(inside, "select name, status from runs where run_uuid = ?", run) == [
        ("train_prior", "FINISHED")
    ]
    tags = tags_of(inside, run)
    assert tags["mlflow.parentRunId"] == "0" * 32
    assert tags["prefect.flow_run_id"] == "f1"
    assert tags["dvc.stage"] == "train_prior"
    assert tags["collapse"] == "alarm: 4 of 4 codes are dead"
    assert dict(ask(inside, "select key, value from params where run_uuid = ?", run)) == {
        "seed": "0",
        "prior.kind": "x",
        "prior.rates": "[0.0001, 1]",
    }
    counts = ask(
        inside,
        "select key, count(*), max(step) from metrics where run_uuid = ? and key not like 'sys%' "
        "group by key",
        run,
    )
    assert sorted(counts) == [("b_d_name", 1500, 1499), ("loss", 1500, 1499)]
    files = {path.name for path in (inside / "mlartifacts" / "latentline" / run).rglob("*.*")}
    assert "history.csv" in files
    assert any(name.startswith("samples+step+3+") and name.endswith(".png") for name in files)
    ((digest, source),) = ask(
        inside, "select digest, dataset_source from datasets where name = 'latents'"
    )
    assert digest == ("ab" * 32)[:36]
    assert json.loads(source)["tags"] == {"dvc.path": "data/latents", "digest": "ab" * 32}
    model_tags = dict(ask(inside, "select tag_key, tag_value from logged_model_tags"))
    assert model_tags["dvc.path"] == "data/prior"
    assert model_tags["digest"] == "cd" * 32


def test_a_killed_stage_ends_its_run_and_goes_on_in_it(inside: Path) -> None:
    program = """
        import os, time
        from pathlib import Path
        from stages.core.tracking import open_tracker
        work = Path(".work/stage/killed")
        work.mkdir(parents=True)
        tracker = open_tracker("train", work)
        for step in range(5):
            tracker.log_metrics({"loss": 5.0 - step}, step=step)
        time.sleep(300)
    """
    stage = run_python(inside, program)
    receipt = inside / ".work" / "stage" / "killed" / "tracking.json"
    wait_for(lambda: receipt.is_file() and "run_id" in receipt.read_text())
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    first = json.loads(receipt.read_text())["run_id"]
    wait_for(lambda: journal_folders(inside) == [])
    assert ask(inside, "select status from runs where run_uuid = ?", first) == [("KILLED",)]

    tracker = open_tracker("train", receipt.parent)
    for step in range(3, 8):
        tracker.log_metrics({"loss": 5.0 - step}, step=step)
    tracker.close("FINISHED")
    assert tracker.identity()["run_id"] == first
    assert ask(inside, "select status from runs where run_uuid = ?", first) == [("FINISHED",)]
    curve = ask(
        inside,
        "select distinct step, value from metrics where run_uuid = ? and key = 'loss'",
        first,
    )
    assert sorted(curve) == [(step, 5.0 - step) for step in range(8)]


def test_without_a_server_the_record_is_kept_and_delivered_later(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    tracker = open_tracker("encode", work_folder(inside, "alone"))
    start = time.monotonic()
    for step in range(1000):
        tracker.log_metrics({"rate": float(step)}, step=step)
    assert time.monotonic() - start < 5
    tracker.close("FINISHED")
    assert tracker.identity()["run_id"] is None
    warnings = capfd.readouterr().err.splitlines()
    assert sum("takes no records now" in line for line in warnings) == 1
    assert "python -m stages.upload_history" in warnings[-1]
    assert len(warnings) == 2
    assert len(journal_folders(inside)) == 1

    assert upload_history([]) == 1
    assert len(journal_folders(inside)) == 1
    assert upload_history(["--to", f"sqlite:///{inside}/mlflow.db"]) == 0
    assert journal_folders(inside) == []
    (run,) = ask(
        inside,
        "select r.run_uuid, r.status from runs r join tags t on t.run_uuid = r.run_uuid "
        "where t.key = 'latentline.record' and t.value = ?",
        tracker.identity()["record"],
    )
    assert run[1] == "FINISHED"
    assert ask(inside, "select count(*) from metrics where run_uuid = ?", run[0]) == [(1000,)]
    assert upload_history([]) == 0


def test_a_journal_delivered_twice_changes_nothing(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.core.tracking._start_sender", lambda folder: None)
    tracker = open_tracker("sample", work_folder(inside, "twice"))
    tracker.log_params({"count": 3})
    for step in range(10):
        tracker.log_metrics({"rate": float(step)}, step=step)
    tracker.close("FINISHED")
    (folder,) = journal_folders(inside)
    journal = (folder / "journal.jsonl").read_bytes()
    assert upload_history([]) == 0
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes(journal)
    assert upload_history([]) == 0
    found = ask(
        inside,
        "select count(distinct r.run_uuid), count(*) from runs r join metrics m "
        "on m.run_uuid = r.run_uuid where r.name = 'sample'",
    )
    assert found == [(1, 10)]


def test_a_stage_that_dies_before_its_sender_looks_leaves_no_sender(inside: Path) -> None:
    program = """
        import os, signal
        from pathlib import Path
        from stages.core.tracking import open_tracker
        work = Path(".work/stage/at_once")
        work.mkdir(parents=True)
        open_tracker("at_once", work)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(inside, program).wait() == -signal.SIGKILL
    wait_for(lambda: journal_folders(inside) == [])
    assert ask(inside, "select status from runs where name = 'at_once'") == [("KILLED",)]


@pytest.mark.parametrize("short", [True, False], ids=["short", "long"])
def test_what_was_left_is_delivered_by_the_next_stage(
    inside: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("stages.core.tracking._start_sender", lambda folder: None)
        left = open_tracker(f"left{short}", work_folder(inside, f"left{short}"))
        left.log_metrics({"loss": 1.0}, step=1)
        left.close("FINISHED")
    tracker = open_tracker("next", work_folder(inside, f"next{short}"))
    if not short:
        wait_for(lambda: len(journal_folders(inside)) == 1)
    tracker.close("FINISHED")
    assert ask(inside, "select status from runs where name = ?", f"left{short}") == [("FINISHED",)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_attempt_says_how_it_ended_whatever_the_clock_says(
    inside: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    monkeypatch.setattr("stages.core.tracking._start_sender", lambda folder: None)
    real = time.time_ns
    stage = f"clock{order[0]}"
    work = work_folder(inside, stage)
    for shift, status in ((0, "KILLED"), (-86400, "FINISHED")):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: real() + shift * 10**9)
        tracker = open_tracker(stage, work)
        tracker.close(status)
    monkeypatch.setattr(time, "time_ns", real)
    folders = sorted(journal_folders(inside), key=lambda path: path.stat().st_mtime_ns)
    for place in order:
        assert upload_history_of(folders[place])
    assert ask(inside, "select status from runs where name = ?", stage) == [("FINISHED",)]


def test_a_living_stage_is_left_alone(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stages.core.tracking._start_sender", lambda folder: None)
    tracker = open_tracker("sample", work_folder(inside, "living"))
    assert upload_history([]) == 1
    assert "still written" in capsys.readouterr().out
    tracker.close("FAILED")
    assert upload_history([]) == 0


@pytest.mark.parametrize(("name", "value"), [("LATENTLINE_TRACKING", "off"), ("RANK", "1")])
def test_no_record_when_switched_off_and_in_later_ranks(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    monkeypatch.setenv(name, value)
    tracker = open_tracker("encode", tmp_path)
    tracker.log_metrics({"rate": 1.0})
    tracker.log_image(tmp_path / "absent.png", "absent")
    tracker.close("FINISHED")
    assert isinstance(tracker, NullTracker)
    assert set(tracker.identity().values()) == {None}
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_the_journal_does_not_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    (tmp_path / ".work").write_text("a file where a folder must be")
    tracker = open_tracker("encode", tmp_path)
    tracker.log_metrics({"rate": 1.0})
    tracker.close("FINISHED")
    assert "no record is kept" in capsys.readouterr().err


def test_a_missing_picture_does_not_stop_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    monkeypatch.setattr("stages.core.tracking._start_sender", lambda folder: None)
    tracker = open_tracker("encode", tmp_path)
    tracker.log_image(tmp_path / "absent.png", "absent")
    tracker.log_metrics({"rate": 1.0})
    assert "absent.png" in capsys.readouterr().err


def test_the_store_is_absolute_and_shared_with_temporary_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/a.db")
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/runs/a.db"
    assert portable(tracking_uri(tmp_path), tmp_path) == "sqlite:///runs/a.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/a.db")
    assert tracking_uri(tmp_path) == "sqlite:////elsewhere/a.db"


def test_a_path_that_sqlite_would_cut_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "what?"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    assert isinstance(open_tracker("toy", project), NullTracker)
    assert "must have no '?' in its path" in capsys.readouterr().err


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b'{"kind": "open"}', b"\0\0"])
def test_a_damaged_journal_is_set_aside_and_holds_up_no_other(
    inside: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = inside / ".work/tracking/prepare-000000000001"
    damaged.mkdir(parents=True)
    (damaged / "journal.jsonl").write_bytes(line + b"\n")
    assert not _is_left(damaged, tracking_uri(inside))
    assert upload_history([]) == 1
    assert "damaged, kept as" in capsys.readouterr().out
    assert (damaged / "journal.damaged.jsonl").read_bytes() == line + b"\n"
    assert damaged not in journal_folders(inside)
    shutil.rmtree(damaged)


def test_no_password_is_shown() -> None:
    asked = "API request to https://me:word@host:5000/api failed with exception X"
    assert reason(Exception(asked)).startswith("API request to https://host:5000/api failed")
    assert without_credentials("https://me:word@host:5000/x") == "https://host:5000/x"
    for word in ("s3cr#t", "s3c?et", "s3c/et", "s3c[et", "s3@c", "s3:c"):
        uri = f"postgresql://me:{word}@host:5432/mlflow"
        assert without_credentials(uri) == "postgresql://host:5432/mlflow"
        assert reason(Exception(f"cannot reach {uri} now")) == (
            "cannot reach postgresql://host:5432/mlflow now"
        )
    for uri in ("http://host/a@b", "sqlite:////home/a@b/mlflow.db", "databricks", "/runs/a@b"):
        assert without_credentials(uri) == uri
    assert without_credentials("http://token@host/x") == "http://host/x"
    assert run_url("https://me:word@host:5000/", "3", "r") == (
        "https://host:5000/#/experiments/3/runs/r"
    )


def test_runs_of_a_local_store_are_on_the_page_that_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = "sqlite:////project/mlflow.db"
    monkeypatch.delenv("LATENTLINE_MLFLOW_PAGE", raising=False)
    assert run_url(local, "3", "r") == "http://127.0.0.1:5000/#/experiments/3/runs/r"
    monkeypatch.setenv("LATENTLINE_MLFLOW_PAGE", "http://127.0.0.1:5711")
    assert run_url(local, "3", "r") == "http://127.0.0.1:5711/#/experiments/3/runs/r"
    assert run_url("http://host", "3", "r") == "http://host/#/experiments/3/runs/r"


def test_parameters_become_dotted_names_within_limits() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": []}, "e": None}) == {"a.b.c": 1, "a.d": [], "e": None}
    (param,) = as_params({"a": {"long": "x" * 7000}})
    assert (param.key, len(param.value)) == ("a.long", 6000)
    assert safe_name("a/b c.d-e_f:\u00b5") == "a/b c.d-e_f__"


def test_a_journal_that_goes_while_they_are_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = (tmp_path / ".work" / "tracking" / name for name in ("kept-1", "gone-1"))
    for folder in (kept, gone):
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").touch()
    listed = list((tmp_path / ".work" / "tracking").glob("*/journal.jsonl"))
    (gone / "journal.jsonl").unlink()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(listed))
    assert journal_folders(tmp_path) == [kept]
