"""Exact resume, early stopping, divergence, and the order in which data are seen."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from stages.bottlenecks.base import Bottleneck, BottleneckOptions
from stages.core.errors import DivergenceError, Interrupted
from stages.core.sections import load_member, validate
from stages.core.shapes import FeatureShape
from stages.training.checkpoint import read_checkpoint, write_checkpoint
from stages.training.loop import SKIPS_IN_A_ROW, _Training, fit
from stages.training.optimization import learning_rate, make_optimizer
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.training.regression import Regression, options, run_in

CPU = torch.device("cpu")


def train(folder, task=None, **changes):
    task = task or Regression()
    return fit(task, options(**changes), run_in(folder, task), seed=1, device=CPU)


def assert_same(first, second):
    assert_same_weights(first, second)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)


def assert_same_weights(first, second):
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, second.module.state_dict()[name]), name


@pytest.mark.parametrize("pieces", [1, 7])
def test_twice_half_is_one_whole_bit_for_bit(pieces, tmp_path):
    whole = train(tmp_path / "whole", pieces=pieces)
    for stop_at in (1, 23, 40):
        folder = tmp_path / str(stop_at)
        with pytest.raises(Interrupted, match="run again to go on"):
            train(folder, Regression(stop_at=stop_at), pieces=pieces)
        assert_same(whole, train(folder, pieces=pieces))


def test_pieces_share_rows_and_differ_in_their_streams(tmp_path):
    """Without randomness, the mean over pieces is the loss of the batch."""
    histories = []
    for pieces in (1, 3):
        task = Regression(noise=0.0)
        fitted = train(tmp_path / str(pieces), task, pieces=pieces, batch_size=6)
        assert task.seen.sum() == 60 * 6
        histories.append(fitted.history[["loss", "gradient_norm"]].dropna().to_numpy())
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)
    noisy = [train(tmp_path / f"noisy {n}", pieces=n, batch_size=6).history for n in (1, 3)]
    assert not np.allclose(noisy[0]["loss"].dropna(), noisy[1]["loss"].dropna(), rtol=1e-4)


def test_a_batch_is_cut_into_equal_pieces():
    with pytest.raises(ValueError, match="must be a multiple of pieces; got 7 images in 2 pieces"):
        options(pieces=2)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    whole = train(tmp_path / "whole")
    folder = tmp_path / "damaged"
    with pytest.raises(Interrupted):
        train(folder, Regression(stop_at=20), checkpoint_seconds=1e-9)
    newest = folder / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:-2000])
    assert read_checkpoint(folder)["state"]["step"] == 19
    assert_same(whole, train(folder))


def test_both_checkpoints_damaged_starts_over(tmp_path, capsys):
    for _ in range(2):
        write_checkpoint(tmp_path, {"step": 1})
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"torn")
    assert read_checkpoint(tmp_path) is None
    assert capsys.readouterr().err.count("damaged checkpoint passed over") == 2


PROGRAM = """
import sys, pathlib, torch
from stages.training.loop import fit
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.training.regression import Regression, options, run_in
task = Regression(pause=0.02)
folder = pathlib.Path(sys.argv[1])
fitted = fit(task, options(checkpoint_seconds=0.05), run_in(folder, task), seed=1,
             device=torch.device("cpu"))
torch.save(fitted.module.state_dict(), folder / "result.pt")
"""


def test_kill_9_at_any_moment_then_go_on(tmp_path, project):
    whole = train(tmp_path / "whole")
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    for least in (1, 2):
        process = subprocess.Popen(command, cwd=project)
        seen: set[int] = set()
        while len(seen) < 2 + least and process.poll() is None:
            state = read_checkpoint(folder)
            seen |= {state["state"]["step"]} if state else set()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "result.pt").exists()
    subprocess.run(command, cwd=project, check=True)
    result = torch.load(folder / "result.pt")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, result[name]), name


def test_divergence_names_step_and_last_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match="at step 29: .*last good checkpoint: step 29"):
        train(tmp_path, Regression(poison_at=30), checkpoint_seconds=1e-9)


def test_early_stopping_keeps_the_best_weights(tmp_path):
    task = Regression()
    task.validations = [3.0, 1.0, 2.0, 2.5, 0.0, 0.0]
    fitted = train(tmp_path, task, patience=2)
    assert fitted.best_step == 20
    assert fitted.history["step"].max() == 40
    best = train(tmp_path / "best", None, steps=60)
    assert not torch.equal(fitted.module[0].weight, best.module[0].weight)


def test_learning_rate_is_the_documented_curve():
    plan = options(steps=105, warmup_steps=5)
    assert learning_rate(0, plan) == pytest.approx(1e-2 / 5)
    assert learning_rate(5, plan) == pytest.approx(1e-2)
    assert learning_rate(104, plan) == pytest.approx(1e-4)
    middle = 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * 0.5050505)) / 2
    assert learning_rate(55, plan) == pytest.approx(middle, rel=1e-5)
    linear = options(steps=105, warmup_steps=5, decay="linear")
    assert learning_rate(55, linear) == pytest.approx(1e-4 + (1e-2 - 1e-4) * (1 - 50 / 99))


def test_weight_decay_spares_biases():
    groups = make_optimizer(Regression().module, options()).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.01, 2), (0.0, 2)]


@pytest.mark.parametrize("kind", ["vq", "gumbel", "score_function"])
def test_weight_decay_spares_codebooks(kind):
    values = next(each for each in BOTTLENECKS if each["kind"] == kind)
    read = validate(BottleneckOptions.of_kind(kind), values, source="test")
    bottleneck = load_member(Bottleneck, kind)(read, FeatureShape(8, 2, 2))
    before = {name: weight.clone() for name, weight in bottleneck.named_parameters()}
    optimizer = make_optimizer(bottleneck, options(weight_decay=0.5))
    for weight in bottleneck.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kept = {name for name, weight in bottleneck.named_parameters() if weight.equal(before[name])}
    assert "codebook" in kept
    assert not any(name.endswith("weight") and before[name].any() for name in kept)


def test_steep_steps_are_skipped_after_the_warm_up_and_counted(tmp_path):
    """Only the steps above the threshold are missing, and a resumed run skips the same ones."""
    norms = train(tmp_path / "whole").history["gradient_norm"]
    steep = float(norms.iloc[-1])
    fitted = train(tmp_path / "some", skip_above_norm=steep)
    skipped = fitted.history["skipped_steps"].dropna()
    assert 0 < skipped.iloc[-1] < 55 and skipped.is_monotonic_increasing
    with pytest.raises(Interrupted):
        train(tmp_path / "again", Regression(stop_at=37), skip_above_norm=steep)
    assert_same(fitted, train(tmp_path / "again", skip_above_norm=steep))
    never = train(tmp_path / "never", skip_above_norm=1e9)
    assert_same_weights(never, train(tmp_path / "off"))
    assert never.history["skipped_steps"].dropna().iloc[-1] == 0


def test_a_threshold_below_every_gradient_does_not_stop_the_training(tmp_path):
    task = Regression()
    training = _Training(
        task, options(warmup_steps=7, skip_above_norm=1e-9), run_in(tmp_path, task), 1, CPU
    )
    moved = []
    for _ in range(7 + 2 * (SKIPS_IN_A_ROW + 1)):
        before = task.module[0].weight.detach().clone()
        training._train_step()
        moved.append(not torch.equal(before, task.module[0].weight))
    row = [False] * SKIPS_IN_A_ROW + [True]
    assert moved == [True] * 7 + row + row
    assert training.state.skipped_steps == 2 * SKIPS_IN_A_ROW
