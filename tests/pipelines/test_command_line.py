"""The command line: one message per mistake, nothing left after an interruption, both pages."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.machine.servers import (
    mlflow_server,
    prefect_api,
    prefect_server,
    running,
    shown_to_runs,
)
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import MARK, PROJECT, Line, free_port, living
from tests.waiting import wait_until

PATIENCE = 200.0


class Command:
    """`python -m pipelines ...` in a workspace, with all it starts."""

    def __init__(self, root: Path, mark: str, *arguments: str, **environment: str) -> None:
        self.log = root / ".work" / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines", *arguments],
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(PROJECT), MARK: mark, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.said() or self.process.poll() is not None, PATIENCE)
        assert words in self.said(), self.said()

    def status(self) -> int:
        return self.process.wait(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--set", "first.valu=x"], "did you mean 'first.value'?"),
        (["run", "--set", "first.value"], "--set must be section.key=value"),
        (["preset", "no-such"], "preset 'no-such': no such file"),
    ],
)
def test_mistakes_are_one_message(
    line: Line, mark: str, api_url: str, arguments: list[str], message: str
) -> None:
    command = Command(line.root, mark, *arguments, PREFECT_API_URL=api_url)
    assert command.status() == 1
    assert message in command.said()
    assert "Traceback" not in command.said()


@pytest.mark.parametrize(("command", "module"), [("sample", "draw"), ("complete", "complete")])
def test_programs_for_people_get_their_options_as_they_are(
    command: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        ran.append(arguments)
        return subprocess.CompletedProcess(arguments, 7)

    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr("pipelines.__main__.subprocess.run", run)
    options = ["--classes", "3,7", "--count", "64", "--out", "FILE.png", "--top-p=0.9", "-h"]
    assert main([command, *options]) == 7
    assert ran == [[sys.executable, "-m", f"stages.{module}", *options]]
    with pytest.raises(SystemExit):
        main(["presets", "--no-such"])


def test_a_server_that_does_not_answer_is_named(line: Line, mark: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    command = Command(line.root, mark, "run", PREFECT_API_URL=nowhere)
    assert command.status() == 1
    assert nowhere in command.said()
    assert "Traceback" not in command.said()


def test_outside_a_project_it_says_so(tmp_path: Path, mark: str) -> None:
    (tmp_path / ".work").mkdir()
    command = Command(tmp_path, mark, "run")
    assert command.status() == 1
    assert "dvc.yaml" in command.said()


@pytest.mark.slow
def test_a_second_run_waits_and_goes_on_when_the_first_is_stopped(
    line: Line, mark: str, api_url: str
) -> None:
    line.set(first="{value: one, sleep: 600}")
    one = Command(line.root, mark, "run", PREFECT_API_URL=api_url)
    one.wait_for("first begins")
    two = Command(line.root, f"{mark}-two", "run", PREFECT_API_URL=api_url)
    two.wait_for("waiting for")
    assert f"process {one.process.pid}" in two.said()
    line.set()
    one.process.send_signal(signal.SIGTERM)
    assert one.status() == 75, one.said()
    assert living(mark) == []
    assert "run the same command again" in one.said()
    assert two.status() == 0, two.said()
    assert line.value("third") == "three 5"


def test_a_run_without_a_server_has_its_own_and_leaves_its_history(
    line: Line, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_HOME")
    run = Command(line.root, mark, "run")
    assert run.status() == 0, run.said()
    for words in ("length", "2.5", "cm", "higher", "executed", "make ui"):
        assert words in run.said()
    assert living(mark) == []
    with sqlite3.connect(line.root / ".work/prefect/prefect.db") as database:
        assert database.execute("select state_name from flow_run").fetchall() == [("Completed",)]


@pytest.mark.slow
def test_ui_starts_what_is_not_there_and_leaves_nothing(
    line: Line, mark: str, api_url: str
) -> None:
    port = free_port()
    ui = Command(line.root, mark, "ui", "--mlflow-port", str(port), PREFECT_API_URL=api_url)
    ui.wait_for("Ctrl-C stops them")
    assert f"Prefect: {api_url}" in ui.said()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
        assert response.status == 200
    ui.process.send_signal(signal.SIGTERM)
    assert ui.status() == 0, ui.said()
    assert living(mark) == []


def test_a_run_finds_the_servers_of_ui(
    tmp_path: Path, api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("LATENTLINE_MLFLOW_PAGE", "")
    monkeypatch.delenv("LATENTLINE_MLFLOW_PAGE")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".work" / "servers").mkdir(parents=True)
    port = int(api_url.split(":")[2].split("/")[0])
    servers = [prefect_server(tmp_path, port), mlflow_server(tmp_path, 5711)]
    with shown_to_runs(tmp_path, servers):
        with prefect_api(tmp_path) as found:
            assert found == api_url == os.environ["PREFECT_API_URL"]
            assert os.environ["LATENTLINE_MLFLOW_PAGE"] == "http://127.0.0.1:5711"
    assert list((tmp_path / ".work" / "servers").iterdir()) == []


@pytest.mark.parametrize("command", ["up", "ui"])
@pytest.mark.parametrize("number", ["99999", "0", "-1", "٤٢", "5e3"])
def test_a_port_that_cannot_be_is_refused(
    command: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("prefect", "mlflow"):
        with pytest.raises(SystemExit):
            main([command, f"--{name}-port", number])
        assert "must be a whole number from 1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (["up", "--prefect-port", "4317", "--mlflow-port", "4317"], 4317),
        (["up", "--prefect-port", "5000"], 5000),
        (["ui", "--mlflow-port", "4200"], 4200),
    ],
)
def test_two_servers_on_one_port_are_refused_before_either_starts(
    line: Line,
    arguments: list[str],
    both: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(line.root)
    # A server that answers there would be used, and none of its own started.
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    servers = "pipelines.machine.servers"
    monkeypatch.setattr(f"{servers}.needed_store", nullcontext)
    monkeypatch.setattr(f"{servers}.open_experiment", lambda *_: "1")
    monkeypatch.setattr(f"{servers}.start_session", lambda *_, **__: pytest.fail("it was started"))
    assert main(arguments) == 1
    assert f"must have a port each, both have {both}" in capsys.readouterr().err


def test_a_taken_port_is_named(tmp_path: Path, api_url: str) -> None:
    port = int(api_url.split(":")[2].split("/")[0])
    with pytest.raises(LatentlineError, match=f"port {port} of this machine is taken"):
        with running(tmp_path, prefect_server(tmp_path, port)):
            pass
