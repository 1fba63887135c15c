"""A real small sweep: killed in the middle, run again, and everything agrees in the end."""

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.sweep import _what_failed
from pipelines.sweeping.results import BranchOutcome
from tests.line.repository import Repository, make_repository
from tests.pipelines.trivial_line import MARK, QUIET, living

PATIENCE = 1500.0
SWEEP = """
# Three priors, of which the last is hopeless
# python -m pipelines sweep small
preset: null
set: {train_prior.steps: 600, train_prior.patience: 0}
stages: [train_prior]
objective: {stage: train_prior, figure: validation_nats_per_image, direction: lower}
search: {kind: grid}
over:
  train_prior.learning_rate: [3.0e-3, 2.0e-3, 2.0e-5]
parallel: 1
pruning: {stage: train_prior, figure: validation_nats_per_image, from_step: 20, peers: 2}
"""


def start(repository: Repository, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", "sweep", "small", "--accelerators", "7"],
            cwd=repository.path,
            env=repository.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while words not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def recorded(root: Path) -> pd.DataFrame:
    """All runs of the sweep's MLflow experiment."""
    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sweep small")
    assert experiment is not None
    rows: list[dict[str, Any]] = []
    for run in client.search_runs([experiment.experiment_id]):
        tags = run.data.tags
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        rows.append(
            {
                "id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "parent": tags.get("mlflow.parentRunId"),
                "stage": tags.get("dvc.stage"),
                "pruned": tags.get("latentline.pruned"),
                "files": files,
                "tags": tags,
            }
        )
    return pd.DataFrame(rows)


def assert_recorded(root: Path, experiments: "pd.Series[str]") -> None:
    """MLflow has one sweep, its branches once each, and under them the stages they executed."""
    runs = recorded(root)
    [sweep] = runs[runs["parent"].isna()].to_dict("records")
    assert sweep["status"] == "FINISHED"
    assert {"table.csv", "table.md", "sweep.png"} <= set(sweep["files"])
    branches = runs[runs["parent"] == sweep["id"]]
    assert sorted(branches["name"]) == sorted(experiments), "one record, killed or not"
    stages = runs[runs["parent"].isin(branches["id"])]
    assert sorted(stages["stage"]) == [
        "encode",
        "prepare",
        "train_autoencoder",
        "train_prior",
        "train_prior",
        "train_prior",
    ]
    [pruned] = branches[branches["pruned"].notna()].to_dict("records")
    assert pruned["status"] == "KILLED" and pruned["tags"]["stage.train_prior"] == "pruned"
    assert sorted(stages["status"]) == ["FINISHED"] * 5 + ["KILLED"]
    assert len(stages) + len(branches) + 1 == len(runs)


def test_the_error_says_what_failed_and_whether_running_it_again_helps() -> None:
    def failed(name: str, is_valid: bool) -> BranchOutcome:
        return BranchOutcome(name, {}, "failed", None, {}, 0.0, None, "no", {}, is_valid)

    told = _what_failed("mine", [failed(f"b{n}", True) for n in range(5)], 9)
    assert told.splitlines() == [
        "sweep mine: 5 of 9 branches failed; run it again to try them again",
        *("b0: no", "b1: no", "b2: no"),
    ]
    told = _what_failed("mine", [failed("b0", False)], 1)
    assert "no point that is valid" in told and "again" not in told and "b0: no" in told


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_and_run_again_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, mark: str, api_url: str
) -> None:
    environment = {**QUIET, MARK: mark, "PREFECT_API_URL": api_url, "LATENTLINE_TRACKING": "on"}
    repository = make_repository(tmp_path / "project", environment=environment)
    (repository.path / "pipelines/sweeps/small.yaml").write_text(SWEEP)
    repository.commit("a sweep")

    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    first = start(repository, first_log)
    wait_for("Running stage 'train_prior'", first_log, first)
    seen = {process.environ().get("CUDA_VISIBLE_DEVICES") for process in living(mark)}
    assert "7" in seen, "a stage sees the accelerator of its branch"
    while left := living(mark):
        for process in left:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
    first.wait()
    second = start(repository, second_log)
    status = second.wait(PATIENCE)
    said = first_log.read_text() + second_log.read_text()
    assert status == 0, second_log.read_text()
    assert living(mark) == []
    for stage, times in {"prepare": 1, "train_autoencoder": 1, "encode": 1}.items():
        assert said.count(f"Running stage '{stage}'") == times, stage

    table = pd.read_csv(repository.path / ".work/sweeps/small/table.csv")
    assert table["state"].tolist() == ["finished", "finished", "pruned"]
    assert (repository.path / ".work/sweeps/small/sweep.png").stat().st_size > 5000

    assert_recorded(repository.path, table["experiment"])

    shown = repository.dvc("exp", "show", "--csv", "--no-pager")
    rows = {row["Experiment"]: row for row in csv.DictReader(io.StringIO(shown))}
    finished = table[table["state"] == "finished"]
    assert set(finished["experiment"]) <= set(rows)
    for row in finished.to_dict("records"):
        there = float(rows[row["experiment"]]["train_prior.learning_rate"])
        assert there == pytest.approx(float(row["train_prior.learning_rate"]))
    assert repository.git("status", "--porcelain") == ""

    # The winner is taken over without training anything.
    best = finished.iloc[0]
    [line] = [line for line in second_log.read_text().splitlines() if line.startswith("best: ")]
    name, command = line.removeprefix("best: ").split("; to take it over: ")
    assert name == best["experiment"]
    taken = repository.run(sys.executable, *shlex.split(command)[1:])
    assert "Running stage" not in taken, taken
    history = pd.read_csv(repository.path / "data/prior/history.csv")
    kept = json.loads((repository.path / "data/prior/manifest.json").read_text())["about"]
    figure = history.set_index("step").loc[kept["best_step"], "validation_nats_per_image"]
    assert figure == pytest.approx(best["validation_nats_per_image"])
