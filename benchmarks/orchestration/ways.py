"""The ways: bare stages, DVC over them, the flow over DVC with its records, a sweep of lines."""

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipelines.machine.servers
from benchmarks.orchestration.copies import SERVERS, Copy
from pipelines.machine.servers import mlflow_server, prefect_server, running
from pipelines.workspace.stage_graph import stage_order

__all__ = ["by_dvc", "by_flow", "by_hand", "by_sweep", "executions", "serving"]

STARTUP_SECONDS = 400.0
"""A measurement may begin on a busy machine; what it measures begins later."""


def by_hand(copy: Copy) -> dict[str, int]:
    """Each stage as a program, in order; no DVC, no records."""
    stages = list(stage_order(copy.root))
    for stage in stages:
        copy.run(f"stages.{stage}", tracked=False)
    return dict.fromkeys(stages, 1)


def by_dvc(copy: Copy) -> dict[str, int]:
    """DVC, without records."""
    return executions(copy.run("dvc", "--wait-for-lock", "repro", tracked=False))


def by_flow(copy: Copy) -> dict[str, int]:
    """The flow: Prefect over DVC over stages, with records in MLflow."""
    return executions(copy.run("pipelines", "run"))


def by_sweep(copy: Copy, name: str) -> dict[str, int]:
    """The flow `sweep`."""
    return executions(copy.run("pipelines", "sweep", name))


def executions(output: str) -> dict[str, int]:
    """How often DVC says that it runs a stage."""
    return dict(Counter(re.findall(r"Running stage '(\w+)'", output)))


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Within, a Prefect and an MLflow server are up, and all that is started uses them."""
    os.environ["PREFECT_HOME"] = str(folder / "prefect")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    pipelines.machine.servers.STARTUP_SECONDS = STARTUP_SECONDS
    servers = [prefect_server(folder, _free_port()), mlflow_server(folder, _free_port())]
    with running(folder, *servers) as processes:
        os.environ["PREFECT_API_URL"] = servers[0].environment["PREFECT_API_URL"]
        os.environ["MLFLOW_TRACKING_URI"] = servers[1].url
        os.environ[SERVERS] = ",".join(str(process.pid) for process in processes)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
