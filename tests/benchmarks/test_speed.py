"""Every benchmark of speed runs through at tiny sizes, without peers, and writes its results."""

import csv
import importlib

import numpy as np
import pytest
import torch

from benchmarks.__main__ import PROGRAMS
from benchmarks.cost_growth import cores
from benchmarks.cost_growth.growth import Core, exponent, measure_growth
from benchmarks.cost_growth.memory import peak_bytes
from benchmarks.cost_growth.report import markdown
from benchmarks.reading.contest import mapped_split
from benchmarks.reading.data import plain_file
from benchmarks.side_by_side import ceiling, peers
from benchmarks.side_by_side.prior_model import PriorSize, make_prior, matrix_weights
from benchmarks.side_by_side.training_step import STEPS_IN_A_ROW

TINY = {
    "quantizer": ["--vectors", "256", "--sizes", "3x7"],
    "autoencoder_step": ["--batch", "2"],
    "prior_step": ["--tokens", "4", "--batch", "2", "--layers", "1", "--width", "24"],
    "sampling": ["--runs", "2x4", "--layers", "1", "--width", "24"],
    "encoding": ["--images", "12", "--batch", "5"],
    "reading": ["--rows", "30", "--codes", "6", "--batch", "4", "--batches", "3"],
}


@pytest.fixture(autouse=True)
def no_peers(monkeypatch):
    """Some take longer to import than all tests of this file to run."""
    monkeypatch.setattr(peers, "versions", lambda packages: {})


@pytest.mark.parametrize("name", TINY)
def test_it_measures_and_writes(name, tmp_path, monkeypatch):
    monkeypatch.setattr(ceiling, "SIZE", 256)
    main = importlib.import_module(f"benchmarks.{name}.__main__").main
    threads = str(torch.get_num_threads())
    main([*TINY[name], "--rounds", "1", "--threads", threads, "--output", str(tmp_path)])
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    timed = STEPS_IN_A_ROW - 1 if name.endswith("_step") else 1
    ran = [row for row in rows if row["runs"] == str(timed)]
    assert {"ours", "ceiling"} <= {row["role"] for row in ran}
    assert all(float(row["rate"]) > 0 for row in ran)
    assert all(row["note"] for row in rows if row["runs"] == "0")


def test_all_of_them_are_run_by_one_command():
    assert set(PROGRAMS) == {*TINY, "cost_growth"}


def test_both_readings_give_the_same_codes(tmp_path):
    split, plain = mapped_split(tmp_path, 20, 6), plain_file(tmp_path / "plain", 20, 6)
    rows = np.array([7, 0, 19])
    assert np.array_equal(split.batch(rows).codes.flatten(1), plain[rows])
    assert len(np.unique(plain)) > 50


def test_the_prior_is_as_large_as_it_says():
    prior = make_prior(PriorSize(6, 384, 256), seed=0)
    assert sum(weight.numel() for weight in matrix_weights(prior)) == pytest.approx(
        1.08e7, rel=0.02
    )
    assert (
        PriorSize(6, 384, 256).hidden
        == prior.transformer.blocks[0].feed_forward.project_out.in_features
    )


def test_an_exponent_is_the_slope_of_logarithms():
    assert exponent([2, 8, 64], [3 * n**1.5 for n in (2, 8, 64)]) == pytest.approx(1.5)


def test_peak_memory_is_seen_though_it_is_given_back():
    # Whatever else runs in this process may take a few MiB meanwhile.
    size = 1 << 26
    assert peak_bytes(lambda: np.ones(size, np.uint8)) == pytest.approx(size, rel=0.1)
    assert peak_bytes(lambda: None) < size / 10


def test_growth_above_what_is_expected_is_marked():
    def make(size):
        return lambda: np.ones(size << 16, np.uint8)

    core = Core("made up", "ones", "64 KiB", [500, 1000, 4000], make, float, lambda size: 1.0)
    growth = measure_growth(core, rounds=1)
    assert growth.memory == pytest.approx(1, abs=0.1)
    assert growth.expected_memory == pytest.approx(0)
    assert f"**{growth.memory:.2f} / " in markdown([growth])


def test_every_core_runs_at_its_smallest_size():
    stages = []
    for core in cores.cores(seed=0, scale=1024):
        smallest = min(core.sizes)
        core.make(smallest)()
        assert core.operations(smallest) > 0 and core.numbers(smallest) > 0
        stages.append(core.stage)
    assert set(stages) == {"train_autoencoder", "encode", "train_prior", "sample", "evaluate"}
