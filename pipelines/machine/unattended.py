"""Everything that lets runs start by themselves, for one machine: `up`, `down`, `status`.

    MLflow's server     its page                                   http://127.0.0.1:5000
    Prefect's server    its page, API and clock                    http://127.0.0.1:4200
    worker              starts the runs that are due, one process each

All three go on in the background, on the loopback interface, with their output in
`.work/servers/*.log`. `up` starts what is missing and leaves what is there; `down` ends exactly
these and all they have started (`pipelines.machine.background`), the worker first, so that an
interrupted run can still say so to the server.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipelines.machine.background import Background
from pipelines.machine.notify import notify
from pipelines.machine.servers import (
    Server,
    answers,
    mlflow_server,
    prefect_server,
    require_free_port,
    require_own_ports,
    show_to_runs,
    told_of,
    use_project_home,
    wait_until_up,
)
from pipelines.workspace.lock import hold
from stages.core.errors import LatentlineError

__all__ = ["Standing", "down", "status", "up"]

PORTS = {"mlflow": 5000, "prefect": 4200}
ORDER = ("mlflow", "prefect", "worker")
STARTUP_SECONDS = 90.0
HANGING_SECONDS = 90.0
"""A server that lives and does not answer for so long is started anew; on a busy machine one that
is well may be silent for half a minute, and runs depend on it."""


@dataclass(frozen=True)
class Standing:
    """How one of the three stands."""

    name: str
    state: str
    """`up`, `down`, or `silent`: it lives and does not answer."""
    url: str
    pid: int | None
    log: str


def up(root: Path, ports: Mapping[str, int | None], log: Callable[[str], None]) -> dict[str, str]:
    """Start what is missing.

    Args:
        root: Of the project.
        ports: `prefect` and `mlflow`; None: where they were last, else the usual ones.
        log: Told what is started and what is there.

    Returns:
        Address of each page.

    Raises:
        LatentlineError: If a port is taken, two are the same, or something does not come up; what
            this call has started is ended then.
    """
    use_project_home(root)
    started: list[Background] = []
    with _one_at_a_time(root, log):
        try:
            servers = _servers(root, ports, log)
            _start_servers(root, servers, started, log)
            show_to_runs(root, list(servers.values()))
            _start_worker(root, servers, started, log)
        except BaseException:
            for process in reversed(started):
                process.end()
            raise
    return {server.name: server.url for server in servers.values()}


def _servers(
    root: Path, ports: Mapping[str, int | None], log: Callable[[str], None]
) -> dict[str, Server]:
    makers = {"mlflow": mlflow_server, "prefect": prefect_server}
    elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if elsewhere.startswith("http"):
        log(f"MLflow: {elsewhere} (MLFLOW_TRACKING_URI) has the records; no other is started")
        del makers["mlflow"]
    return {
        name: make(root, ports.get(name) or _last_port(root, name)) for name, make in makers.items()
    }


def _last_port(root: Path, name: str) -> int:
    note = Background(root, name).note
    return int(note.url.rpartition(":")[2]) if note else PORTS[name]


def _start_servers(
    root: Path,
    servers: Mapping[str, Server],
    started: list[Background],
    log: Callable[[str], None],
) -> None:
    require_own_ports(servers.values())
    missing = {}
    for name, server in servers.items():
        process = Background(root, name)
        note = process.note
        if process.process() is not None and note is not None and _answers_soon(server, note.url):
            if note.url != server.url:
                raise LatentlineError(
                    f"{server.name} is up on {note.url}, not on {server.url}; `python -m pipelines "
                    "down` first, or leave the port out"
                )
            log(f"{server.name} is there: {server.url}")
            continue
        if count := process.end():
            log(f"{server.name}: {count} processes of a dead or silent one ended")
        missing[name] = server
    for server in missing.values():
        require_free_port(server)
    processes = {}
    for name, server in missing.items():
        log(f"starting {server.name}")
        started.append(Background(root, name))
        processes[name] = started[-1].launch(server)
    for name, process in processes.items():
        wait_until_up(missing[name], process)


def _answers_soon(server: Server, url: str) -> bool:
    health = server.health.replace(server.url, url)
    deadline = time.monotonic() + HANGING_SECONDS
    while not (up_now := answers(health)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return up_now


def _start_worker(
    root: Path,
    servers: Mapping[str, Server],
    started: list[Background],
    log: Callable[[str], None],
) -> None:
    told = told_of(servers.values())
    api = told["PREFECT_API_URL"]
    # Not before: prefect reads the environment when it is imported.
    from pipelines.machine.prefect_setup import POOL, prepare, worker_is_online

    worker = Background(root, "worker")
    note = worker.note
    there = worker.process() is not None and note is not None and note.url == api
    if not there:
        worker.end()
    # Now, when nothing of an earlier worker is left, and before another takes up new runs.
    _crash_zombies(root, api, log)
    prepare(root, api, log)
    if there:
        log("the worker is there")
        return
    name = f"latentline-{os.getpid()}-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    server = Server(
        name="the worker",
        command=[*command, "--pool", POOL, "--name", name],
        url=api,
        health="",
        log=root / ".work" / "servers" / "worker.log",
        # It asks for runs every 10 s otherwise, and whoever has started one waits.
        environment={**told, "PREFECT_WORKER_QUERY_SECONDS": "2"},
    )
    log("starting the worker")
    started.append(worker)
    process = worker.launch(server)
    deadline = time.monotonic() + STARTUP_SECONDS
    while not worker_is_online(api, name):
        if process.poll() is not None or time.monotonic() > deadline:
            last = server.log.read_text(errors="replace").splitlines()[-15:]
            heading = f"the worker does not come up; see {server.log}"
            raise LatentlineError("\n".join([heading, *last]))
        time.sleep(0.2)


def down(root: Path, log: Callable[[str], None]) -> None:
    """End what `up` has started and everything that came of it; nothing else.

    Args:
        root: Of the project.
        log: Told what was ended.
    """
    use_project_home(root)
    with _one_at_a_time(root, log):
        show_to_runs(root, [])
        for name in reversed(ORDER):
            process = Background(root, name)
            if process.note is None:
                log(f"{name}: not up")
                continue
            count = process.end(lambda name=name: _after_worker(root, name, log))
            log(f"{name}: ended, {count} process{'' if count == 1 else 'es'}")


def _after_worker(root: Path, name: str, log: Callable[[str], None]) -> None:
    """Say to the server, while it is there, which runs have ended with the worker."""
    note = Background(root, "worker").note
    if name == "worker" and note is not None and answers(f"{note.url}/health"):
        _crash_zombies(root, note.url, log)


def _crash_zombies(root: Path, api: str, log: Callable[[str], None]) -> None:
    from pipelines.machine.prefect_setup import crash_zombies
    from pipelines.records.line_record import close_lines_of

    for run in crash_zombies(root, api):
        log(f"run {run.name}: its process is gone; marked as crashed")
        close_lines_of(root, str(run.id))
        page = f"{api.removesuffix('/api')}/runs/flow-run/{run.id}"
        notify("crashed", f"run {run.name}: its process is gone", {"prefect": page}, log)


def status(root: Path) -> list[Standing]:
    """How each of the three stands."""
    found = []
    for name in ORDER:
        process = Background(root, name)
        note, living = process.note, process.process()
        if note is None or living is None:
            state = "down"
        elif name == "worker" or answers(_health(name, note.url)):
            state = "up"
        else:
            state = "silent"
        pid = living.pid if living else None
        found.append(Standing(name, state, note.url if note else "", pid, note.log if note else ""))
    return found


def _health(name: str, url: str) -> str:
    return f"{url}/api/health" if name == "prefect" else f"{url}/health"


def _one_at_a_time(root: Path, log: Callable[[str], None]) -> AbstractContextManager[int]:
    return hold(root / ".work" / "servers" / "start.lock", "python -m pipelines up or down", log)
