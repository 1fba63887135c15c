"""kill -9 of what runs unattended: Prefect's server in the middle of a run, the worker, MLflow."""

import os
import signal
import time

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.machine.background import Background
from pipelines.machine.servers import prefect_server, running
from tests.faults.conftest import Undisturbed
from tests.faults.place import PATIENCE, Place
from tests.faults.table import case
from tests.pipelines.machine.test_deployment import install
from tests.pipelines.trivial_line import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@case("Prefect's server is killed in the middle of a run and started again", "the line goes on")
def test_prefect_server_restarts(
    trivial: Place, undisturbed_trivial: Undisturbed, monkeypatch: pytest.MonkeyPatch, result
) -> None:
    monkeypatch.setattr("pipelines.machine.servers.STARTUP_SECONDS", 600.0)
    monkeypatch.setenv("PREFECT_HOME", str(trivial.path / ".work" / "prefect"))
    trivial.environment["PREFECT_HOME"] = str(trivial.path / ".work" / "prefect")
    server = prefect_server(trivial.path, free_port())
    trivial.environment |= {"PREFECT_API_URL": server.environment["PREFECT_API_URL"]}
    params = trivial.path / "params.yaml"
    before = params.read_text()
    with running(trivial.path, server) as [process]:
        # Long enough that the server is gone and there again while the stage runs.
        params.write_text(before.replace("{value: one}", "{value: one, sleep: 20}"))
        run = trivial.start("pipelines", "run")
        wait_until(lambda: "first begins" in trivial.said or run.poll() is not None, PATIENCE)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with running(trivial.path, server):
        status = run.wait(timeout=3000)
        first = "the run went on to its end" if status == 0 else f"the run ended with {status}"
        params.write_text(before)
        assert trivial.call("pipelines", "run") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    result(f"{first}; equal bytes")


@case(
    "`up`; then kill -9 of the worker in the middle of a run, of MLflow's and Prefect's server",
    "`up` ends what they have left, marks the run as crashed, starts them again",
)
def test_what_up_has_started(
    trivial: Place, undisturbed_trivial: Undisturbed, monkeypatch: pytest.MonkeyPatch, result
) -> None:
    install(trivial.path)
    trivial.git("add", "-A")
    trivial.git("commit", "-q", "-m", "installed")
    trivial.environment |= {
        "LATENTLINE_TRACKING": "on",
        "PREFECT_HOME": str(trivial.path / ".work" / "prefect"),
    }
    prefect, mlflow = free_port(), free_port()
    api = f"http://127.0.0.1:{prefect}/api"
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    params = trivial.path / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("{value: one}", "{value: one, sleep: 600}"))
    began = time.monotonic()
    try:
        assert trivial.call("pipelines", "up", *ports) == 0, trivial.said
        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("two_stage/adhoc")
            run = client.create_flow_run_from_deployment(deployment.id)
            work = trivial.path / ".work" / "workspace.lock"
            wait_until(lambda: any("first" in p.cmdline() for p in trivial.living()), PATIENCE)
            assert work.exists()
            for name in ("worker", "mlflow", "prefect"):
                process = Background(trivial.path, name).process()
                assert process is not None
                os.kill(process.pid, signal.SIGKILL)
            params.write_text(before)
            assert trivial.call("pipelines", "up") == 0, trivial.said
            assert "ended" in trivial.said or "starting" in trivial.said
            wait_until(lambda: client.read_flow_run(run.id).state_name == "Crashed", 300)
            again = client.create_flow_run_from_deployment(deployment.id)
            wait_until(lambda: client.read_flow_run(again.id).state_name == "Completed", PATIENCE)
    finally:
        assert trivial.call("pipelines", "down") == 0, trivial.said
    trivial.environment["LATENTLINE_TRACKING"] = "off"
    trivial.require_whole(undisturbed_trivial.hashes)
    states = [state for _, state in trivial.run_states()]
    assert "RUNNING" not in states and "FINISHED" in states, states
    result(f"crashed run marked, equal bytes ({time.monotonic() - began:.0f} s)")
