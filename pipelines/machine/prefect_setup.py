"""What a Prefect server must hold before runs start by themselves, and what a crash leaves in it.

A run whose process was killed outright stays `Running` for ever: nobody is left to say otherwise.
Two things end it. While the server is up, an automation: a run that has sent heartbeats and has
sent none for ten minutes is crashed (docs.prefect.io/v3/advanced/detect-zombie-flows). At each `up`
and `down`, a look at the processes: our flows note theirs in .work/flow_runs/ID.json, and a run
whose process was on this machine and is gone is crashed now. So is one that has been pending for
ten minutes: its process ended before it could note anything. (Workers note a process too, but not
on which host.)
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from prefect.tasks import Task

from pipelines.machine.background import living_process
from pipelines.workspace.reproduce import StageFailed
from stages.core.errors import LatentlineError

__all__ = [
    "POOL",
    "crash_zombies",
    "noted_process",
    "prepare",
    "require_limit",
    "worker_is_online",
    "worth_retrying",
]

POOL = "local"
ZOMBIES = "Crash zombie flows"
SILENCE = timedelta(minutes=10)
"""More than three times the 180 s between heartbeats."""
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
LOST = (
    "Its process is gone: killed, or the machine went down. Run it again; finished stages are kept."
)


def prepare(root: Path, api: str, log: Callable[[str], None]) -> None:
    """Make the work pool and the automation if they are missing, and deploy prefect.yaml.

    Args:
        root: Of the project.
        api: URL of the server's API.
        log: Told what was done.

    Raises:
        LatentlineError: If Prefect refuses; with its words.
    """
    with _client(api) as client:
        if POOL not in {pool.name for pool in client.read_work_pools()}:
            _prefect(root, api, "work-pool", "create", POOL, "--type", "process")
            log(f"work pool {POOL} made")
        if not client.read_automations_by_name(ZOMBIES):
            client.create_automation(_crash_silent_runs())
    _prefect(root, api, "deploy", "--all")
    with _client(api) as client:
        names = sorted(deployment.name for deployment in client.read_deployments())
    log(f"prefect.yaml deployed: {', '.join(names)}")


def worker_is_online(api: str, name: str) -> bool:
    """Whether the server hears from the worker of this name."""
    with _client(api) as client:
        workers = client.read_workers_for_work_pool(POOL)
    return any(worker.name == name and worker.status == "ONLINE" for worker in workers)


def _crash_silent_runs() -> AutomationCore:
    return AutomationCore(
        name=ZOMBIES,
        description="A run that sends no heartbeat for ten minutes has no process any more.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{end}" for end in ENDS)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=LOST)],
    )


def crash_zombies(root: Path, api: str) -> list[FlowRun]:
    """Mark the runs of a server whose process on this machine is gone.

    Args:
        root: Of the project.
        api: URL of the server's API.

    Returns:
        Those that were marked.
    """
    open_states = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]
    unfinished = FlowRunFilter.model_validate({"state": {"type": {"any_": open_states}}})
    marked = []
    # Before the server is asked: a run that begins meanwhile is not among these.
    notes = list(_notes(root).glob("*.json"))
    with _client(api) as client:
        for run in client.read_flow_runs(flow_run_filter=unfinished):
            if _is_gone(root, run):
                client.set_flow_run_state(run.id, Crashed(message=LOST), force=True)
                marked.append(run)
    for note in notes:
        if _process_is_gone(note):
            note.unlink(missing_ok=True)
    return marked


def _is_gone(root: Path, run: FlowRun) -> bool:
    """Whether a run had a process on this machine and has it no more, or never came to have one."""
    told = _process_is_gone(_note(root, str(run.id)))
    if told is not None:
        return told
    state = run.state
    if state is None or not state.is_pending():
        return False
    return datetime.now(UTC) - state.timestamp > SILENCE


def _process_is_gone(note: Path) -> bool | None:
    """Whether the process of a note was on this machine and is no more; None: there is no note."""
    try:
        noted = json.loads(note.read_text())
        here = noted["host"] == socket.gethostname()
        return here and living_process(noted["pid"], noted["started"]) is None
    except (OSError, ValueError, KeyError):
        return None


def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: a failed stage may succeed though nobody mends anything."""
    return isinstance(state.data, StageFailed) and state.data.worth_retrying


def require_limit(name: str) -> None:
    """Refuse to go on without a global concurrency limit, on the server of the present run.

    Raises:
        LatentlineError: If there is none of that name.
    """
    with get_client(sync_client=True) as client:
        known = [limit.name for limit in client.read_global_concurrency_limits()]
    if name not in known:
        raise LatentlineError(
            f"slots: must name a global concurrency limit of Prefect; got {name!r}, there are: "
            f"{', '.join(known) or 'none'}. Make it: prefect gcl create {name} --limit 1"
        )


@contextmanager
def noted_process(root: Path, flow_run_id: str) -> Iterator[None]:
    """Within, `.work/flow_runs/ID.json` says which process works on a flow run.

    It still does when the flow ends otherwise than well: it may have been ended together with the
    server, which then does not get to know. `crash_zombies` takes such notes away.
    """
    path = _note(root, flow_run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    here = psutil.Process()
    note = {"host": socket.gethostname(), "pid": here.pid, "started": here.create_time()}
    path.write_text(json.dumps(note))
    yield
    path.unlink(missing_ok=True)


def _notes(root: Path) -> Path:
    return root / ".work" / "flow_runs"


def _note(root: Path, flow_run_id: str) -> Path:
    return _notes(root) / f"{flow_run_id}.json"


@contextmanager
def _client(api: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        yield client


def _prefect(root: Path, api: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=root,
        env={**os.environ, "PREFECT_API_URL": api, "PROJECT_ROOT": str(root)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise LatentlineError("\n".join([f"prefect {' '.join(arguments)} failed:", *said]))
