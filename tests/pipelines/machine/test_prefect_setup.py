"""Runs whose process is gone are marked; runs that live, or of which nothing is known, are not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from pipelines.machine.prefect_setup import crash_zombies, noted_process


@flow
def nothing() -> None:
    pass


def begun(client: SyncPrefectClient, pid: str | None) -> FlowRun:
    run = client.create_flow_run(nothing, state=Running())
    if pid:
        client.update_flow_run(run.id, infrastructure_pid=f"{socket.gethostname()}:{pid}")
    return run


def test_a_run_that_was_ended_without_its_server_is_crashed(tmp_path: Path, api_url: str) -> None:
    """Its process leaves in order, but there is nobody to tell."""
    work = "with noted_process(Path.cwd(), sys.argv[1]): sys.exit(1)"
    imports = "import sys; from pathlib import Path"
    program = f"{imports}; from pipelines.machine.prefect_setup import noted_process\n{work}"
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        run = begun(client, None)
        command = [sys.executable, "-c", program, str(run.id)]
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 1
        assert [found.id for found in crash_zombies(tmp_path, api_url)] == [run.id]
        assert client.read_flow_run(run.id).state_name == "Crashed"
    assert not list(tmp_path.rglob("*.json"))


def test_runs_without_their_process_are_crashed_and_no_others(tmp_path: Path, api_url: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        by_worker = begun(client, str(ended.pid))
        living = begun(client, str(os.getpid()))
        unknown = begun(client, None)
        elsewhere = begun(client, None)
        client.update_flow_run(elsewhere.id, infrastructure_pid=f"another-host:{ended.pid}")
        by_hand, by_hand_living = begun(client, None), begun(client, None)
        with noted_process(tmp_path, str(by_hand.id)):
            pass
        note = tmp_path / ".work" / "flow_runs" / f"{by_hand.id}.json"
        assert not note.exists()
        with noted_process(tmp_path, str(by_hand_living.id)):
            here = json.loads(note.with_name(f"{by_hand_living.id}.json").read_text())
            # The same process id, started at another time: not that process.
            note.write_text(json.dumps(here | {"started": here["started"] - 60}))
            marked = crash_zombies(tmp_path, api_url)
        assert {run.id for run in marked} == {by_worker.id, by_hand.id}
        runs = (by_worker, by_hand, living, unknown, elsewhere, by_hand_living)
        states = [client.read_flow_run(run.id).state_name for run in runs]
        assert states == ["Crashed"] * 2 + ["Running"] * 4
        for run in (living, unknown, elsewhere, by_hand_living):
            client.delete_flow_run(run.id)
