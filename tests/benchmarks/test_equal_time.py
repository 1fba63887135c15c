"""Pairs of stages are judged alike: perfect pictures win, and the table says whose they are."""

import json
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.equal_time import ours
from benchmarks.equal_time.__main__ import _markdown, _sheet, main
from benchmarks.equal_time.judged import judge
from benchmarks.equal_time.peers import PEERS, Made, Task
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from tests.evaluation.test_feature_store import CPU, Sums

RANDOM = np.random.default_rng(0)
TEST = RANDOM.integers(0, 256, (60, 3, 4, 5), dtype=np.uint8)


def made(name, images, labels=None):
    return Made(name, images, images[:40], labels, {"first": 1.0, "second": 2.0}, 0.5)


def test_what_is_nearer_to_the_test_images_is_judged_better(tmp_path):
    store = FeatureStore(tmp_path, CPU, lambda: None)
    test = ImageSet("test", TEST, np.arange(60), None, "test split")
    worse = (TEST // 2 + 60).astype(np.uint8)
    copy, blurred = (
        judge(made(n, i), test, Sums(), store, 0) for n, i in (("a", TEST), ("b", worse))
    )
    assert copy.mse == 0 and copy.rfrechet == pytest.approx(0, abs=1e-3)
    assert blurred.mse == pytest.approx(np.mean((worse / 255 - TEST / 255) ** 2))
    assert blurred.frechet > copy.frechet and blurred.rfrechet > copy.rfrechet
    assert "cannot be asked" in _markdown([copy])


def test_accuracy_is_that_of_the_asked_classes(tmp_path):
    store = FeatureStore(tmp_path, CPU, lambda: None)
    test = ImageSet("test", TEST, np.arange(60), None, "test split")
    logits = torch.from_numpy(TEST[:40, 0]).float().sum(dim=1)
    right = judge(made("a", TEST, logits.argmax(dim=1).numpy()), test, Sums(), store, 0)
    assert right.accuracy == 1.0 and "| 1.00 |" in _markdown([right])


def test_the_sheet_has_two_rows_a_pair_below_the_test_images():
    one, two = (_sheet([made("a", TEST)] * n, TEST).height for n in (1, 2))
    assert two > one


@pytest.mark.slow
@pytest.mark.parametrize("pair", PEERS)
def test_peers_train_for_as_long_as_they_are_told(pair):
    pytest.importorskip("pythae")
    images = RANDOM.integers(0, 256, (300, 1, 28, 28), dtype=np.uint8)
    found = pair(Task(images, images[:50], 1.0, 1.0, samples=7, seed=0))
    assert found.samples.shape == (7, 1, 28, 28) and found.reconstructions.shape == (50, 1, 28, 28)
    assert found.seconds["first"] >= 1.0


def test_a_training_without_a_record_ends_with_one_message(tmp_path, monkeypatch, capsys):
    marker = tmp_path / "data" / "runs" / "train_autoencoder.json"
    marker.parent.mkdir(parents=True)
    marker.write_text("{}")
    outcome = tmp_path / ".work" / "families" / "made_up" / "ours" / "outcome.json"
    outcome.parent.mkdir(parents=True)
    outcome.write_text(json.dumps({"outcome": {"folder": str(tmp_path)}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    monkeypatch.setattr(ours, "opened_store", lambda _: nullcontext())
    with pytest.raises(SystemExit):
        main(["made_up"])
    assert "must name the MLflow run" in capsys.readouterr().err


def test_a_line_that_fails_ends_with_one_message(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit):
        main(["made_up"])
    assert "ended with status 3" in capsys.readouterr().err
