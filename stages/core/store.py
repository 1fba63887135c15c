"""Which MLflow store a project records to, and how one is opened without doing harm.

The default is SQLite in the project, at an absolute path: a relative one would name another file
in every folder a stage runs in. A fresh SQLite file is given its tables under a file lock, because
two processes that do it at once leave it broken for ever.
"""

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import stages.core.loopback
import stages.core.quiet  # noqa: F401
from stages.core.errors import LatentlineError
from stages.core.moved_store import ARTIFACTS, PATIENCE, follow_move

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = [
    "PAGE",
    "SQLITE",
    "experiment_name",
    "open_experiment",
    "opened_store",
    "portable",
    "reason",
    "run_url",
    "tracking_uri",
    "without_credentials",
]

EXPERIMENT = "latentline"
PAGE = "LATENTLINE_MLFLOW_PAGE"
"""Variable: address of the page that shows a local store, where it is not the usual one."""
USUAL_PAGE = "http://127.0.0.1:5000"
"""Where `mlflow ui` shows a local store."""
SQLITE = "sqlite:///"
LONGEST_REASON = 200
CLIENT = {
    # MLflow's own are 120 s and 7 retries: a dead server would hold the end of a stage for long.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Set for MLflow's client where the user has not."""


def tracking_uri(root: Path) -> str:
    """The store MLFLOW_TRACKING_URI names, else `mlflow.db` of the project; always absolute.

    Raises:
        LatentlineError: If it is a SQLite store in a project where none can be.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if not uri.startswith(SQLITE):
        return uri
    found = f"{SQLITE}{root / uri.removeprefix(SQLITE)}"
    if "?" in str(root):
        # What follows would be taken for options, and what is before for the file.
        raise LatentlineError(
            f"a SQLite store must have no '?' in its path, has {found}; "
            "move the project, or set MLFLOW_TRACKING_URI"
        )
    return found


def experiment_name() -> str:
    """What MLFLOW_EXPERIMENT_NAME says, else `latentline`."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def without_credentials(uri: str) -> str:
    """The URI as it may be shown and stored: no user name, no password.

    A password may hold what ends the host of an address for others (`/`, `?`, `#`): SQLAlchemy,
    and so MLflow, takes it as it stands.
    """
    return re.sub(r"^([^:/]+://)[^/@:]*(:.*)?@", r"\1", uri, flags=re.DOTALL)


def portable(uri: str, root: Path) -> str:
    """The URI as others may read it: a SQLite file by its path within the project."""
    database = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and database.is_relative_to(root):
        return f"{SQLITE}{database.relative_to(root)}"
    return without_credentials(uri)


def reason(error: Exception) -> str:
    """What went wrong with a store, in one line of bearable length."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    # MLflow names the address it asked, user name and password included.
    line = re.sub(r"//\S+@", "//", line)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def run_url(uri: str, experiment_id: str, run_id: str) -> str:
    """Where a browser finds the run; for a local store, on the page that `PAGE` names."""
    server = uri if uri.startswith("http") else os.environ.get(PAGE) or USUAL_PAGE
    return f"{without_credentials(server).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


@contextmanager
def opened_store(uri: str) -> Iterator["MlflowClient"]:
    """Import MLflow (seconds), connect, and hold the store's lock within the block.

    The client may be used after it; what makes things others might be making at the same time
    (tables, an experiment, the run of a record) belongs inside.

    Args:
        uri: Tracking URI.

    Raises:
        Exception: Whatever MLflow raises when the store cannot be opened.
    """
    for name, value in CLIENT.items():
        os.environ.setdefault(name, value)
    # Alembic tells of every migration of a new store.
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking.client import MlflowClient

    with _sqlite_lock(uri) if uri.startswith(SQLITE) else nullcontext():
        yield MlflowClient(tracking_uri=uri)


@contextmanager
def _sqlite_lock(uri: str) -> Iterator[None]:
    database = Path(uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # MLflow asks for what cannot be opened again and again, for more than a minute and a half.
        with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.execute("PRAGMA schema_version")
        yield


def open_experiment(client: "MlflowClient", uri: str, name: str, root: Path) -> str:
    """Id of the experiment, made if it is new; within `opened_store`.

    Args:
        client: The store.
        uri: Its URI.
        name: Name of the experiment.
        root: The project; a store without a server keeps pictures in its `mlartifacts`.

    Raises:
        Exception: Whatever MLflow raises, also for an experiment that was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        # MLflow would take a folder relative to wherever the process happens to run.
        served = uri.startswith(("http", "databricks"))
        location = None if served else (root / ARTIFACTS / name).as_uri()
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage != "active":
        raise LatentlineError(
            f"experiment {name!r} must be active, is deleted; "
            "restore it in MLflow or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    if uri.startswith(SQLITE):
        follow_move(Path(uri.removeprefix(SQLITE)), root, found.artifact_location)
    return str(found.experiment_id)
