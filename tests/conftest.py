"""What every test shares: one thread, no telemetry, no tracking unless a test asks for it."""

import os
from pathlib import Path

import pytest

for name, value in {
    "LATENTLINE_TRACKING": "off",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(name, value)
# Whatever the caller has set: a process whose threads have computed cannot be forked
# (processes.py); its copy would wait for them for ever.
os.environ["OMP_NUM_THREADS"] = "1"
for name in ("DVC_ROOT", "DVC_STAGE", "MLFLOW_RUN_ID", "LATENTLINE_PARENT_RUN_ID"):
    os.environ.pop(name, None)

PROJECT = Path(__file__).resolve().parents[1]

STARTED_FIRST = ("tests/line/test_dvc.py", "tests/line", "tests/pipelines")
"""They run whole programs and wait for servers: last, one of them would keep one worker busy while
the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        place = item.path.relative_to(PROJECT).as_posix()
        ranks = (i for i, prefix in enumerate(STARTED_FIRST) if place.startswith(prefix))
        return next(ranks, len(STARTED_FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def project() -> Path:
    """Root of the checkout."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("LATENTLINE_SHARED", PROJECT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set LATENTLINE_SHARED")
    return folder
