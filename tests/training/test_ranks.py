"""One process, or several that share the pieces of every batch: the same losses within rounding.

On the CPU, with gloo between the processes. What is about starting and stopping runs
`tests/training/rank_program.py` under the project's own launcher.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.processes import in_processes
from tests.training.rank_program import LEARNING, train

CASES = ("prior", *LEARNING)
pytestmark = pytest.mark.timeout(1500)

TOLERANCE = 1e-5
"""Relative: sums of float32 in another order, over 12 steps."""


def start(folder, processes, **settings):
    folder.mkdir(exist_ok=True)
    environment = {name: v for name, v in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.rank_program", str(folder), str(processes), "prior"],
        env=environment | {name: str(value) for name, value in settings.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, status=0):
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == status, output
    return output


def losses(folder, case):
    return json.loads((folder / f"{case}.json").read_text())


def assert_close(one, other, case):
    for name in ("loss", "validation", "gradient_norm"):
        torch.testing.assert_close(
            torch.tensor(one[name], dtype=torch.float64),
            torch.tensor(other[name], dtype=torch.float64),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            msg=lambda text, name=name: f"{case}, {name}: {text}",
        )


def run_cases(folder, cases, strategy="ddp"):
    """In this process, or in each of several, which share the work."""
    folder.mkdir(exist_ok=True)
    for case in cases:
        train(case, folder, strategy)


def test_two_processes_do_what_one_does(tmp_path, capfd):
    """A codebook that learns and revives, a running sigma, dropout; one process alone speaks."""
    cases = ("ema_vq", "prior")
    run_cases(tmp_path / "one", cases)
    capfd.readouterr()
    assert in_processes(2, run_cases, tmp_path / "two", cases) == [None, None]
    assert capfd.readouterr().out.count("trained") == 2, "rank 0 alone speaks"
    for case in cases:
        assert_close(losses(tmp_path / "one", case), losses(tmp_path / "two", case), case)


@pytest.mark.slow
def test_every_kind_of_statistics_and_uneven_pieces(tmp_path):
    """Three processes of four pieces; every member that learns beside its gradients."""
    run_cases(tmp_path / "one", CASES)
    assert in_processes(3, run_cases, tmp_path / "three", CASES) == [None] * 3
    for case in CASES:
        assert_close(losses(tmp_path / "one", case), losses(tmp_path / "three", case), case)


@pytest.mark.slow
def test_parts_of_the_weights_train_as_copies_do(tmp_path):
    run_cases(tmp_path / "one", ["prior"])
    assert in_processes(2, run_cases, tmp_path / "parts", ["prior"], "fsdp") == [None] * 2
    assert_close(losses(tmp_path / "one", "prior"), losses(tmp_path / "parts", "prior"), "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [((2, "ddp"), (1, "ddp")), ((1, "ddp"), (2, "ddp")), ((2, "ddp"), (2, "fsdp"))],
)
def test_another_number_of_processes_goes_on(first, then, tmp_path, monkeypatch, project):
    """A signal to one rank ends all after a common checkpoint; others go on from it."""
    monkeypatch.chdir(project)
    finish(start(tmp_path / "whole", 1))
    folder = tmp_path / "resumed"
    output = finish(start(folder, first[0], STRATEGY=first[1], STOP_RANK=first[0] - 1), 75)
    assert output.count("stopped on request") == 1, output
    assert not (folder / "prior.json").exists()
    finish(start(folder, then[0], STRATEGY=then[1]))
    assert_close(losses(tmp_path / "whole", "prior"), losses(folder, "prior"), "resumed")


@pytest.mark.slow
def test_a_mistake_is_told_once_and_a_lost_rank_asks_to_run_again(tmp_path, monkeypatch, project):
    monkeypatch.chdir(project)
    output = finish(start(tmp_path / "mistake", 2, MISTAKE_RANK=1), 1)
    assert output.count("this is the mistake") == 1 and "Traceback" not in output
    process = start(tmp_path / "lost", 2, PAUSE=0.5)
    pids = tmp_path / "lost" / "pid_1"
    while not pids.exists():
        time.sleep(0.05)
    os.kill(int(pids.read_text()), signal.SIGKILL)
    assert "rank 1 was lost (SIGKILL)" in finish(process, 75)


@pytest.mark.slow
def test_processes_end_with_a_launcher_that_was_killed(tmp_path, monkeypatch, project):
    monkeypatch.chdir(project)
    process = start(tmp_path / "orphans", 2, PAUSE=0.5)
    files = [tmp_path / "orphans" / f"pid_{rank}" for rank in range(2)]
    while not all(file.exists() for file in files):
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(_alive(int(file.read_text())) for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
