"""DVC's promises, kept by the real line in a repository of its own.

One repository serves all tests of this file, in order: running the line once costs more than all
the rest.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.line.repository import PATIENCE, STAGES, Repository, make_repository, ran

# Not the usual limit: the first of them runs a whole line.
pytestmark = pytest.mark.timeout(PATIENCE)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    repository = make_repository(tmp_path_factory.mktemp("line") / "project")
    output = repository.dvc("repro")
    assert set(ran(output)) == set(STAGES), output
    repository.commit("first run")
    return repository


def test_outputs_are_whole_and_git_stays_clean(line):
    assert line.git("status", "--porcelain") == ""
    figures = json.loads((line.path / "data/metrics/figures.json").read_text())
    for name, figure in figures.items():
        assert figure["unit"] and figure["direction"] in ("lower", "higher", "none"), name
        assert figure["n"] > 0 and figure["protocol"], name
    report = (line.path / "data/metrics/report.html").read_text()
    assert "data:image/png" in report and 'src="http' not in report
    shards = (line.path / "data/latents").glob("*.parquet")
    latents = pd.concat(pd.read_parquet(shard) for shard in shards)
    assert len(latents) == 1797 and latents["codes"].str.len().eq(16).all()
    kept = {"features", "sample"}  # of the data, for other lines; what a larger count goes on from
    left = [path for path in (line.path / ".work").glob("*/*/*") if path.parts[-3] not in kept]
    assert not left, "finished stages leave no work behind"


def test_a_second_repro_does_nothing(line):
    assert ran(line.dvc("repro")) == []


def test_a_prior_parameter_runs_neither_autoencoder_nor_encode(line):
    line.change(prior={"token_dropout": 0.0})
    assert ran(line.dvc("repro")) == ["train_prior", "sample", "evaluate"]


def test_going_back_restores_from_the_run_cache(line):
    line.git("checkout", "-q", "params.yaml")
    marker = line.path / "data/runs/train_prior.json"
    output = line.dvc("repro")
    assert ran(output) == [], output
    assert marker.exists()
    assert line.git("status", "--porcelain") == "", "dvc.lock is that of the first run again"


@pytest.mark.slow
def test_force_gives_the_same_bytes(line):
    before = line.hashes()
    assert ran(line.dvc("repro", "--force")) == STAGES
    assert line.hashes() == before


def test_metrics_plots_and_params_diff(line):
    metrics = json.loads(line.dvc("metrics", "show", "--json"))
    assert "frechet_classifier" in json.dumps(metrics)
    line.change(sampling={"top_k": 3})
    changed = json.loads(line.dvc("params", "diff", "--json"))
    assert changed["params.yaml"]["sampling.top_k"] == {"old": 0, "new": 3, "diff": 3}
    line.git("checkout", "-q", "params.yaml")
    line.dvc("plots", "show", "-o", "plots")
    page = (line.path / "plots" / "index.html").read_text()
    assert "validation_loss" in page and "samples.png" in page
    shutil.rmtree(line.path / "plots")


@pytest.mark.slow
def test_experiments(line):
    output = line.dvc("exp", "run", "-n", "cooler", "-S", "sampling.temperature=0.7")
    assert ran(output) == ["sample", "evaluate"]
    shown = line.dvc("exp", "show", "--json", "--all-commits")
    assert "cooler" in shown and "frechet_classifier" in shown
    line.git("checkout", "-q", "--", ".")
    line.dvc("checkout", "-q")


def test_a_fresh_clone_restores_from_a_remote_without_training(line, tmp_path):
    line.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    line.commit("remote")
    line.dvc("push", "-q", "--run-cache")
    line.git("clone", "-q", str(line.path), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone")
    output = clone.dvc("--wait-for-lock", "repro", "--pull", "--allow-missing")
    assert ran(output) == [], output
    clone.dvc("pull", "-q")
    assert (clone.path / "data/metrics/report.html").exists()
    line.git("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.slow
def test_kill_9_in_the_middle_then_repro_gives_the_undisturbed_bytes(line):
    line.change(train_autoencoder={"steps": 400, "checkpoint_seconds": 0.2})
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "train_autoencoder"]
    process = subprocess.Popen(
        command,
        cwd=line.path,
        env=line.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    work = line.path / ".work" / "train_autoencoder"
    while not list(work.glob("*/checkpoint.previous.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(work.glob("*/checkpoint.previous.pt")), "killed too early or too late"
    line.dvc("repro", "--single-item", "train_autoencoder")
    resumed = line.hashes()["data/autoencoder"]
    line.dvc("repro", "--single-item", "--force", "train_autoencoder")
    assert line.hashes()["data/autoencoder"] == resumed


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("sampling", {"temperature": "hot"}, "sampling.temperature: Input should be a valid num"),
        pytest.param(
            "sampling",
            {"temprature": 1.0},
            "sampling.temprature is not a known parameter; did you",
            marks=pytest.mark.slow,
        ),
        pytest.param("head", {"kind": "mixture"}, "head.", marks=pytest.mark.slow),
        ("backbone", {"widths": [8, 8, 8, 8]}, "must be multiples of 16; the images are 8x8"),
    ],
)
def test_mistakes_stop_the_first_stage_in_one_message(line, section, values, message):
    line.change(**{section: values})
    output = line.run(sys.executable, "-m", "stages.prepare", check=False)
    line.git("checkout", "-q", "params.yaml")
    assert message in output
    assert "Traceback" not in output
