"""prefect.yaml as it stands: deployed, a worker runs it, by hand and when the clock says so.

No import test and no run by hand would notice a database library with which schedules never fire.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.workspace.runner import end_session, start_session
from tests.pipelines.trivial_line import MARK, PROJECT, Line, living

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
PATIENCE = 200.0


def install(root: Path) -> None:
    """Give the trivial line the project's flow and deployments, the nightly one every minute."""
    for package in ("pipelines", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, root / package, ignore=ignored)
    written = (PROJECT / "prefect.yaml").read_text()
    assert written.count('"0 3 * * *"') == 1
    (root / "prefect.yaml").write_text(written.replace('"0 3 * * *"', '"* * * * *"'))


@contextmanager
def deployed(root: Path, elsewhere: Path, mark: str, api_url: str) -> Iterator[None]:
    environment = {
        **os.environ,
        MARK: mark,
        "PREFECT_API_URL": api_url,
        "PROJECT_ROOT": str(root),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    for command in (
        [*PREFECT, "work-pool", "create", "local", "--type", "process"],
        [*PREFECT, "deploy", "--all"],
    ):
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    with (elsewhere / "worker.log").open("wb") as log:
        worker = start_session(
            [*PREFECT, "worker", "start", "--pool", "local"],
            cwd=elsewhere,
            env=environment,
            output=log.fileno(),
        )
        try:
            yield
        finally:
            end_session(worker, grace=10)


def test_a_worker_runs_the_line_by_hand_and_by_the_clock(
    line: Line, tmp_path: Path, mark: str, api_url: str
) -> None:
    install(line.root)
    with (
        temporary_settings({PREFECT_API_URL: api_url}),
        deployed(line.root, tmp_path, mark, api_url),
        get_client(sync_client=True) as client,
    ):
        adhoc = client.read_deployment_by_name("two_stage/adhoc")
        chosen = {"config": {"stages": ["first"], "force": True}}
        by_hand = client.create_flow_run_from_deployment(adhoc.id, parameters=chosen)
        nightly = client.read_deployment_by_name("two_stage/nightly")

        ended = FlowRunFilter(
            state={"name": {"any_": ["Completed", "Failed", "Crashed"]}},
            deployment_id={"any_": [adhoc.id, nightly.id]},
        )

        def both_ended() -> bool:
            runs = client.read_flow_runs(flow_run_filter=ended)
            assert {run.state_name for run in runs} <= {"Completed"}, runs
            return {by_hand.id, True} <= {run.id for run in runs} | {r.auto_scheduled for r in runs}

        deadline = time.monotonic() + PATIENCE
        while not both_ended():
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
            time.sleep(0.5)
        assert nightly.global_concurrency_limit is not None
        assert nightly.global_concurrency_limit.limit == 1
        client.delete_deployment(nightly.id)  # or it would go on every minute
    assert line.value("third") == "three 5"
    assert living(mark) == []
