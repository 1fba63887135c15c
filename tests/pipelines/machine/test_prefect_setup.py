"""Runs whose process is gone are marked; runs that live, or of which nothing is known, are not."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running

from pipelines.machine import prefect_setup
from pipelines.machine.prefect_setup import crash_zombies, noted_process


@flow
def nothing() -> None:
    pass


def begun(client: SyncPrefectClient, state: State | None = None) -> FlowRun:
    return client.create_flow_run(nothing, state=state or Running())


def test_a_run_that_was_ended_without_its_server_is_crashed(tmp_path: Path, api_url: str) -> None:
    """Its process leaves in order, but there is nobody to tell."""
    work = "with noted_process(Path.cwd(), sys.argv[1]): sys.exit(1)"
    imports = "import sys; from pathlib import Path"
    program = f"{imports}; from pipelines.machine.prefect_setup import noted_process\n{work}"
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        run = begun(client)
        command = [sys.executable, "-c", program, str(run.id)]
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 1
        assert [found.id for found in crash_zombies(tmp_path, api_url)] == [run.id]
        assert client.read_flow_run(run.id).state_name == "Crashed"
    assert not list(tmp_path.rglob("*.json"))


def test_runs_without_their_process_are_crashed_and_no_others(tmp_path: Path, api_url: str) -> None:
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        runs = ended, living, elsewhere, unknown = [begun(client) for _ in range(4)]
        with noted_process(tmp_path, str(ended.id)):
            pass
        note = tmp_path / ".work" / "flow_runs" / f"{ended.id}.json"
        assert not note.exists()
        with noted_process(tmp_path, str(living.id)):
            here = json.loads(note.with_name(f"{living.id}.json").read_text())
            # The same process id, started at another time: not that process.
            gone = here | {"started": here["started"] - 60}
            note.write_text(json.dumps(gone))
            of_another_host = note.with_name(f"{elsewhere.id}.json")
            of_another_host.write_text(json.dumps(gone | {"host": "another-host"}))
            marked = crash_zombies(tmp_path, api_url)
        assert [run.id for run in marked] == [ended.id]
        states = [client.read_flow_run(run.id).state_name for run in runs]
        assert states == ["Crashed", *["Running"] * 3]
        for run in (living, elsewhere, unknown):
            client.delete_flow_run(run.id)


def test_a_run_that_stays_pending_never_came_to_have_a_process(
    tmp_path: Path, api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        pending, running = begun(client, Pending()), begun(client)
        assert crash_zombies(tmp_path, api_url) == []
        monkeypatch.setattr(prefect_setup, "SILENCE", timedelta(0))
        assert [run.id for run in crash_zombies(tmp_path, api_url)] == [pending.id]
        assert client.read_flow_run(running.id).state_name == "Running"
        client.delete_flow_run(running.id)
