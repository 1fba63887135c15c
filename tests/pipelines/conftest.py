"""A Prefect server of the tests' own, and repositories to run in."""

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.machine.servers import prefect_server, running
from tests.pipelines.trivial_line import QUIET, Line, free_port, make_line

# Before any test imports prefect, which reads them then: nobody's real server, nobody's real home.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="latentline-prefect-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
os.environ.pop("PREFECT_API_URL", None)


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server that plans schedules every few seconds."""
    root = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.setattr("pipelines.machine.servers.STARTUP_SECONDS", 240.0)  # also on a busy machine
        patch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "5")
        server = prefect_server(root, free_port())
        with running(root, server):
            yield server.environment["PREFECT_API_URL"]
            # Its last words while somebody listens: at exit Prefect would try for a minute.
            from prefect.events.worker import EventsWorker
            from prefect.logging.handlers import APILogHandler

            EventsWorker.drain_all(timeout=10)
            APILogHandler().flush()


@pytest.fixture
def mark() -> str:
    """Value of an environment variable by which a test finds the processes it has caused."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def fresh_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository every `line` is a copy of."""
    return make_line(tmp_path_factory.mktemp("fresh") / "line")


@pytest.fixture
def line(fresh_line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    for name in ("PYTHONPATH", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return Line(shutil.copytree(fresh_line, tmp_path / "line"))
