"""The lines that suffer, and the table of what became of them."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.machine.servers import prefect_server, running
from pipelines.workspace.lock import hold
from tests.architecture.imports import PROJECT
from tests.faults.place import Place
from tests.faults.table import page_for_table, write_table
from tests.line.repository import COPIED, make_repository
from tests.pipelines.trivial_line import QUIET, free_port, make_line

LIGHT: dict[str, dict[str, Any]] = {
    # Often enough that every moment of a training finds a checkpoint behind it.
    "train_judge": {"checkpoint_seconds": 0.05},
    "train_autoencoder": {"checkpoint_seconds": 0.05},
    "train_prior": {"checkpoint_seconds": 0.05},
    "evaluate": {
        "num_reconstructions": 4,
        "samples_per_class": 2,
        "neighbour_queries": 4,
        "num_neighbours": 2,
        "distances": {
            "resamples": 4,
            "level": 0.95,
            "infinity_points": 0,
            "kernel_block": 0,
            "precision_neighbours": 3,
            "density_neighbours": 5,
            "score_splits": 2,
        },
    },
}


# The trivial line has no code of the project in it: its flows are those of this checkout.
TRIVIAL = {**QUIET, "PYTHONPATH": str(PROJECT)}


@dataclass(frozen=True)
class Undisturbed:
    """A line that nothing happened to."""

    place: Place
    hashes: dict[str, str]
    """Path of each output -> md5, run markers apart."""
    took: dict[str, dict[str, float]]
    """Process -> how many changes of files and seconds it took."""


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "write the table of results there"
    parser.addoption("--faults-table", metavar="PAGE", type=page_for_table, help=words)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    told = getattr(item.function, "case", None)  # type: ignore[attr-defined]
    if told is not None and call.when == "setup":
        item.user_properties.append(("case", told))
    return (yield)


RESULTS: dict[str, list[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect rows where all reports arrive, with pytest-xdist too."""
    told = dict(report.user_properties)
    if "case" in told and (report.when == "call" or report.outcome != "passed"):
        result = told.get("result", report.outcome) if report.passed else report.outcome
        RESULTS[report.nodeid] = [*told["case"], str(result), f"{report.duration:.0f} s"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("--faults-table", None)
    if page and RESULTS and not hasattr(session.config, "workerinput"):
        # By name: workers of pytest-xdist end in any order.
        write_table(Path(page), [RESULTS[name] for name in sorted(RESULTS)])


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """What the table says of a case that passed."""
    return lambda words: request.node.user_properties.append(("result", words))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The real line, tiny, run once in peace; one for all workers of pytest-xdist.

    LATENTLINE_FAULTS_LINE names a folder where it is kept, for whoever works on one case.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    shared = Path(os.environ.get("LATENTLINE_FAULTS_LINE", shared)) / "undisturbed"
    path, noted = shared / "project", shared / "took.json"
    sources = _digest_of_sources()
    with hold(shared.with_name("undisturbed.lock")):
        if not noted.exists() or json.loads(noted.read_text())["sources"] != sources:
            shutil.rmtree(shared, ignore_errors=True)
            made = make_repository(path)
            made.change(**LIGHT)
            made.commit("light")
            place = Place(path)
            took = place.count("dvc", "repro")
            place.commit("run")
            noted.write_text(json.dumps({"sources": sources, "took": took}))
        place = Place(path)
        return Undisturbed(place, place.hashes(), json.loads(noted.read_text())["took"])


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in COPIED:
        source = PROJECT / name
        code = [file for end in ("py", "cpp", "h") for file in sorted(source.rglob(f"*.{end}"))]
        for file in code if source.is_dir() else [source]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def undisturbed_trivial(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Three stages of no weight, for what happens to DVC, flows, workers and servers."""
    path = make_line(tmp_path_factory.mktemp("trivial") / "line")
    fresh = path.with_name("fresh")
    shutil.copytree(path, fresh)
    place = Place(path, **TRIVIAL)
    took = place.count("dvc", "repro")
    return Undisturbed(Place(fresh, **TRIVIAL), place.hashes(), took)


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of the suite's own; it may take its time to come up.

    LATENTLINE_FAULTS_API names one that is up, for whoever works on one case.
    """
    if there := os.environ.get("LATENTLINE_FAULTS_API"):
        yield there
        return
    root = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PREFECT_HOME": str(root / "home")}.items():
            patch.setenv(name, value)
        patch.setattr("pipelines.machine.servers.STARTUP_SECONDS", 1800.0)
        server = prefect_server(root, free_port())
        with running(root, server):
            yield server.environment["PREFECT_API_URL"]


@pytest.fixture
def line(undisturbed: Undisturbed, tmp_path: Path) -> Iterator[Place]:
    """The real line as it stands after its undisturbed run."""
    place = undisturbed.place.copy(tmp_path / "line")
    yield place
    place.end_all()


@pytest.fixture
def trivial(undisturbed_trivial: Undisturbed, tmp_path: Path) -> Iterator[Place]:
    """The trivial line before its first run."""
    place = undisturbed_trivial.place.copy(tmp_path / "trivial", **TRIVIAL)
    yield place
    place.end_all()


@pytest.fixture(autouse=True)
def _time_between_cases() -> Iterator[None]:
    yield
    # DVC takes files younger than its clock's grain for changed ones.
    time.sleep(0.01)
