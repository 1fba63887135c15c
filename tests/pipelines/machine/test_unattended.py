"""`up` and `down` with real servers: what is missing is started, exactly that is ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.machine.background import Background
from pipelines.machine.unattended import status, up
from stages.core.errors import LatentlineError
from tests.pipelines.machine.test_deployment import install
from tests.pipelines.trivial_line import MARK, Line, free_port, living
from tests.waiting import wait_until


def command(root: Path, mark: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=root,
        env={**os.environ, MARK: mark, "PREFECT_HOME": str(root / ".work" / "prefect")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_deployment(api: str, name: str) -> FlowRun:
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(name)
        run = client.create_flow_run_from_deployment(deployment.id)

        def ended() -> bool:
            state = client.read_flow_run(run.id).state
            return state is not None and state.is_final()

        wait_until(ended)
        return client.read_flow_run(run.id)


def test_without_up_all_is_down(tmp_path: Path) -> None:
    assert [(each.name, each.state) for each in status(tmp_path)] == [
        ("mlflow", "down"),
        ("prefect", "down"),
        ("worker", "down"),
    ]


def test_a_port_of_somebody_else_is_refused_and_nothing_is_left(
    line: Line, api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://records.example")
    taken = int(api_url.split(":")[2].split("/")[0])
    with pytest.raises(LatentlineError, match=f"Prefect: port {taken} of this machine is taken"):
        up(line.root, {"prefect": taken, "mlflow": None}, print)
    assert {each.state for each in status(line.root)} == {"down"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_up_runs_mends_and_down_leaves_nothing(line: Line, mark: str) -> None:
    install(line.root)
    prefect, mlflow = free_port(), free_port()
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    api = f"http://127.0.0.1:{prefect}/api"
    try:
        assert f"Prefect: http://127.0.0.1:{prefect}" in command(line.root, mark, "up", *ports)
        assert {each.state for each in status(line.root)} == {"up"}
        assert run_deployment(api, "two_stage/adhoc").state_name == "Completed"
        assert line.value("third") == "three 5"
        for name in ("mlflow", "prefect"):
            process = Background(line.root, name).process()
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
        said = command(line.root, mark, "up")  # where they were
        assert "starting MLflow" in said
        assert "starting Prefect" in said
        assert "the worker is there" in said
        again = run_deployment(api, "refresh/refresh").state
        assert again is not None
        assert again.message == "nothing changed: 3 stages are up to date"
        said = command(line.root, mark, "up")
        assert f"Prefect is there: http://127.0.0.1:{prefect}" in said
        assert "starting" not in said
        assert "worker   up" in command(line.root, mark, "status")
    finally:
        command(line.root, mark, "down")
    assert living(mark) == []
