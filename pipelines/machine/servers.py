"""The servers behind the two pages: Prefect's (runs) and MLflow's (records), on this machine only.

Both work on the data of the project, `.work/prefect` and `mlflow.db`, so they show the runs of
yesterday too. They listen on the loopback interface: neither asks who is there.

A run started by hand needs a Prefect server. It uses, in this order: the one PREFECT_API_URL
names; the one `python -m pipelines up` or `ui` has started here; one of its own while it runs.
Differs: from Prefect's ephemeral server only in that it sits in a session of its own, so Ctrl-C
reaches the run first and the server can still be told how the run ended.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import stages.core.loopback
import stages.core.quiet  # noqa: F401
from pipelines.records.needed_store import needed_store
from pipelines.workspace.lock import hold
from pipelines.workspace.runner import end_session, start_session
from stages.core.errors import LatentlineError
from stages.core.store import PAGE as RECORDS_PAGE
from stages.core.store import (
    experiment_name,
    open_experiment,
    tracking_uri,
    without_credentials,
)

__all__ = [
    "Server",
    "answers",
    "mlflow_server",
    "prefect_api",
    "prefect_api_until_exit",
    "prefect_server",
    "require_free_port",
    "require_own_ports",
    "running",
    "show_to_runs",
    "shown_to_runs",
    "start",
    "told_of",
    "use_project_home",
    "wait_until_up",
]

STARTUP_SECONDS = 90.0
LOOPBACK = "127.0.0.1"
PAGE = f"http://{LOOPBACK}:4200"
CORS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"


@dataclass(frozen=True)
class Server:
    """A server to start."""

    name: str
    command: list[str]
    url: str
    """Its page."""
    health: str
    """Answers 200 once it is up."""
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the server itself."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Variables by which runs of the project find it."""


def told_of(servers: Iterable[Server]) -> dict[str, str]:
    """Variables by which runs of the project find all of these."""
    return {name: value for server in servers for name, value in server.told.items()}


def use_project_home(root: Path) -> None:
    """Keep Prefect's data in the project, unless the user has a home for them.

    Call before prefect is imported or its server started: both read the environment then.
    """
    os.environ.setdefault("PREFECT_HOME", str(root / ".work" / "prefect"))


def prefect_server(root: Path, port: int) -> Server:
    """Prefect's server with its page and schedules, on the data of PREFECT_HOME."""
    url = f"http://{LOOPBACK}:{port}"
    told = {"PREFECT_API_URL": f"{url}/api"}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
    return Server(
        name="Prefect",
        command=[*command, "--host", LOOPBACK, "--port", str(port)],
        url=url,
        health=f"{url}/api/health",
        log=root / ".work" / "servers" / f"prefect-{port}.log",
        # By default any page in this machine's browser may ask the API for anything.
        environment={**told, CORS: os.environ.get(CORS) or url},
        told=told,
    )


def mlflow_server(root: Path, port: int) -> Server:
    """MLflow's server on the project's own store, which is made here if there is none yet.

    Raises:
        LatentlineError: If the store cannot be opened.
    """
    uri = tracking_uri(root)
    # Under the store's lock: a run that begins just now would make the same tables.
    with needed_store(uri) as client:
        open_experiment(client, uri, experiment_name(), root)
    url = f"http://{LOOPBACK}:{port}"
    options = {
        "--backend-store-uri": uri,
        "--artifacts-destination": str(root / "mlartifacts"),
        "--host": LOOPBACK,
        "--port": str(port),
        "--workers": "1",
        # A page of another site, whose name its owner lets point here, is refused.
        "--allowed-hosts": f"{LOOPBACK}:{port},localhost:{port}",
        "--cors-allowed-origins": url,
    }
    pairs = [word for option in options.items() for word in option]
    return Server(
        name="MLflow",
        command=[sys.executable, "-m", "mlflow", "server", *pairs],
        url=url,
        health=f"{url}/health",
        log=root / ".work" / "servers" / f"mlflow-{port}.log",
        # The job runner is 240 MB for features nothing here uses.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        told={RECORDS_PAGE: url},
    )


@contextmanager
def running(root: Path, *servers: Server) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start servers, wait until all answer, and end them with all their processes afterwards.

    Yields:
        The process of each server.

    Raises:
        LatentlineError: If a port is taken, two have the same, or a server does not come up.
    """
    require_own_ports(servers)
    with ExitStack() as stack:
        # One start at a time: two that find no database both make one, and it stays broken.
        with hold(root / ".work" / "servers" / "start.lock"):
            processes = [stack.enter_context(_started(server, root)) for server in servers]
            for server, process in zip(servers, processes, strict=True):
                wait_until_up(server, process)
        yield processes


@contextmanager
def _started(server: Server, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    require_free_port(server)
    process = start(server, root)
    try:
        yield process
    finally:
        end_session(process)


def start(
    server: Server, root: Path, additions: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server as leader of a session of its own, its output in its log.

    Args:
        server: What to start.
        root: Of the project.
        additions: Variables of its environment beside its own.
    """
    server.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **server.environment, **(additions or {})}
    with server.log.open("wb") as log:
        return start_session(server.command, cwd=root, env=environment, output=log.fileno())


def require_own_ports(servers: Iterable[Server]) -> None:
    """Refuse servers of which two would listen on the same port.

    Raises:
        LatentlineError: Naming the port.
    """
    there: dict[int, str] = {}
    for server in servers:
        port = _port(server)
        if port in there:
            raise LatentlineError(
                f"{there[port]} and {server.name} must have a port each, both have {port}; choose "
                "another for one of them (--prefect-port, --mlflow-port)"
            )
        there[port] = server.name


def require_free_port(server: Server) -> None:
    """Refuse to start a server where somebody else listens.

    Raises:
        LatentlineError: Naming the port.
    """
    port = _port(server)
    if not _is_free(port):
        raise LatentlineError(
            f"{server.name}: port {port} of this machine is taken; stop what uses it or choose "
            "another port (--prefect-port, --mlflow-port)"
        )


@contextmanager
def prefect_api(root: Path) -> Iterator[str]:
    """The API of a Prefect server that is up, set as PREFECT_API_URL; see the module's text.

    Raises:
        LatentlineError: If PREFECT_API_URL names a server that does not answer.
    """
    told = _told(root)
    if page := told.get(RECORDS_PAGE):
        os.environ.setdefault(RECORDS_PAGE, page)
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if not answers(f"{given.rstrip('/')}/health"):
            raise LatentlineError(
                f"PREFECT_API_URL is {without_credentials(given)}, but no server answers there; "
                "start it or unset PREFECT_API_URL to run without one"
            )
        yield given
        return
    shown = told.get("PREFECT_API_URL")
    if shown is not None and answers(f"{shown}/health"):
        os.environ["PREFECT_API_URL"] = shown
        yield shown
        return
    server = prefect_server(root, _free_port())
    with running(root, server):
        os.environ.update(server.environment)
        # This server ends with the run; what is written down points at the page of `make ui`.
        os.environ.setdefault("LATENTLINE_PREFECT_PAGE", PAGE)
        yield server.environment["PREFECT_API_URL"]


def prefect_api_until_exit(root: Path) -> None:
    """`prefect_api` until this process ends, on the data of the project if none else are named.

    Call before prefect is imported.
    """
    if not os.environ.get("PREFECT_API_URL"):
        use_project_home(root)
    servers = ExitStack()
    # Exit handlers run last first: Prefect's, registered when it is imported, still send the end
    # of the logs, and would try for minutes if their server were gone.
    atexit.register(servers.close)
    servers.enter_context(prefect_api(root))


@contextmanager
def shown_to_runs(root: Path, servers: Sequence[Server]) -> Iterator[None]:
    """Within, runs of this project that have no Prefect server or MLflow page use these."""
    show_to_runs(root, servers)
    try:
        yield
    finally:
        show_to_runs(root, [])


def show_to_runs(root: Path, servers: Sequence[Server]) -> None:
    """The same until the next call; without a Prefect server among them, runs have their own."""
    _note(root).unlink(missing_ok=True)
    if told := told_of(servers):
        _note(root).write_text(json.dumps(told))


def _note(root: Path) -> Path:
    return root / ".work" / "servers" / "told.json"


def _told(root: Path) -> dict[str, str]:
    try:
        told: dict[str, str] = json.loads(_note(root).read_text())
    except (OSError, ValueError):
        return {}
    return told


def answers(url: str) -> bool:
    """Whether a GET is answered with 200 within a few seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def wait_until_up(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server that was started answers.

    Raises:
        LatentlineError: If it ends before, or does not come up; with the last lines of its log.
    """
    deadline = time.monotonic() + STARTUP_SECONDS
    while not answers(server.health):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.poll() is not None
            how = f"ended with status {process.returncode}" if ended else "does not answer"
            last = server.log.read_text(errors="replace").splitlines()[-15:]
            raise LatentlineError("\n".join([f"{server.name} {how}; see {server.log}", *last]))
        time.sleep(0.1)


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port is not taken because connections of its last owner linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
