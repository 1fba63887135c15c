"""The stage `sample`, from artifacts to an artifact."""

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import stages.sampling.pieces
from stages.assembly.first_stage import FirstStageParams, build_first_stage, save_first_stage
from stages.assembly.second_stage import SecondStageParams, build_second_stage, save_second_stage
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.errors import ArtifactError, Interrupted
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.sample import OUTPUT, Params, sample
from stages.sampling.draw import GROUP
from tests.backbones.examples import conv
from tests.objectives.examples import ELBO
from tests.priors.sections import TRANSFORMER

IMAGE = ImageShape(channels=3, height=6, width=4)
BOTTLENECKS = {
    "codes": {
        "kind": "vq",
        "num_codes": 5,
        "dim": 4,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
        "decay": 0.99,
        "revive_below": 0.0,
        "kmeans_iterations": 0,
        "kmeans_vectors": 1,
    },
    "continuous": {"kind": "gaussian", "layout": "spatial", "channels": 2},
}
HEADS = {
    "codes": {"kind": "categorical", "tied": False},
    "continuous": {"kind": "mixture", "components": 2, "std_floor": 0.1, "guidance_candidates": 2},
}
SAMPLING = {
    "count": GROUP + 20,
    "seed": 5,
    "classes": [],
    "temperature": 0.9,
    "top_k": 4,
    "top_p": 0.95,
    "pixels": "mean",
    "guidance": 1.2,
    "batch_size": 1,
    "min_p": 0.0,
    "variance_temperature": 1.0,
    "guidance_schedule": "constant",
    "guidance_power": 1.0,
    "guidance_interval": [0.0, 1.0],
    "rejection_tries": 1,
    "rejection_threshold": 1.0,
    "compile": False,
    "precision": "float32",
}


def make_autoencoder(stored):
    raw = {
        "autoencoder": {"kind": "flat"},
        "backbone": conv([4], 0),
        "bottleneck": BOTTLENECKS[stored],
        "likelihood": {"kind": "gaussian", "sigma": "fixed", "value": 0.1, "decay": 0.9},
        "objective": ELBO,
    }
    params = parse_params(FirstStageParams, raw, source="params.yaml", strict=True)
    torch.manual_seed(0)
    autoencoder = build_first_stage(params, IMAGE)
    with new_artifact(Path("data/autoencoder"), "autoencoder", {}) as folder:
        save_first_stage(folder, autoencoder, params, IMAGE)
    return autoencoder.bottleneck.spec, open_artifact(Path("data/autoencoder"), "autoencoder")


def make_prior(stored, spec, autoencoder_digest, num_classes):
    raw = {"prior": TRANSFORMER | {"layers": 1, "width": 8}, "head": HEADS[stored]}
    params = parse_params(SecondStageParams, raw, source="params.yaml", strict=True)
    torch.manual_seed(1)
    network = build_second_stage(params, spec, num_classes)
    names = [f"kind {label}" for label in range(num_classes)]
    with new_artifact(Path("data/prior"), "prior", {}) as folder:
        save_second_stage(folder, network, params, autoencoder_digest, "b" * 64, names)
    return open_artifact(Path("data/prior"), "prior")


def make_line(stored="codes", num_classes=3, autoencoder_digest=None):
    spec, autoencoder = make_autoencoder(stored)
    prior = make_prior(stored, spec, autoencoder_digest or autoencoder.digest, num_classes)
    return {"autoencoder": autoencoder, "prior": prior}


def run_it(inputs, work="work", **changes):
    raw = {"device": "cpu", "sampling": SAMPLING | changes}
    params = parse_params(Params, raw, source="params.yaml", strict=True)
    Path(work).mkdir(exist_ok=True)
    run = Run("sample", Path(work), inputs, NullTracker(), threading.Event())
    sample(params, run)
    return open_artifact(OUTPUT, "samples")


@pytest.fixture(autouse=True)
def in_an_empty_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_artifact_holds_images_and_where_they_come_from():
    inputs = make_line()
    artifact = run_it(inputs)
    count = SAMPLING["count"]
    images = np.load(artifact.path / "images.npy")
    assert images.dtype == np.uint8 and images.shape == (count, *IMAGE)
    table = pd.read_parquet(artifact.path / "samples.parquet")
    assert table["index"].tolist() == list(range(count))
    assert table["label"].tolist() == [i % 3 for i in range(count)]
    assert table["class_name"][4] == "kind 1" and set(table["seed"]) == {5}
    assert np.stack(table["codes"]).shape == (count, 6) and table["codes"][0].dtype == np.uint8
    assert (table["log_probability"] < 0).all()
    assert artifact.about["autoencoder"] == inputs["autoencoder"].digest
    assert artifact.about["prior"] == inputs["prior"].digest
    mean = table["log_probability"].astype(float).mean()
    assert artifact.about["mean_log_probability"] == pytest.approx(mean)
    assert (artifact.path / "samples.png").stat().st_size > 0


def test_continuous_latents_without_classes():
    artifact = run_it(make_line("continuous", num_classes=0), count=3, guidance=1.0)
    table = pd.read_parquet(artifact.path / "samples.parquet")
    assert set(table) == {"index", "seed", "log_probability"}
    assert np.load(artifact.path / "images.npy").shape == (3, *IMAGE)


def test_batch_size_and_count_leave_the_images_as_they_are():
    inputs = make_line()
    images = {}
    for number, (batch_size, count) in enumerate([(1, 70), (3, 70), (7, 70), (500, 70), (7, 5)]):
        artifact = run_it(inputs, work=f"work{number}", batch_size=batch_size, count=count)
        images[number] = np.load(artifact.path / "images.npy")
    for number in range(1, 5):
        np.testing.assert_array_equal(images[number], images[0][: len(images[number])])


def test_draws_of_pixels_are_those_of_the_image_whatever_the_batch():
    inputs = make_line()
    images = {}
    for number, (pixels, count) in enumerate([("mean", 5), ("draw", 5), ("draw", 70)]):
        artifact = run_it(inputs, work=f"work{number}", pixels=pixels, count=count)
        images[number] = np.load(artifact.path / "images.npy").astype(int)
    np.testing.assert_array_equal(images[1], images[2][:5])
    # The likelihood is a Gaussian of standard deviation 0.1 on [-1, 1]: 12.75 of 255.
    unclipped = (images[0] > 45) & (images[0] < 210)
    noise = (images[1] - images[0])[unclipped]
    assert noise.std() == pytest.approx(12.75, abs=5 * 12.75 / (2 * len(noise)) ** 0.5)


def test_an_interrupted_run_goes_on_to_the_same_bytes(monkeypatch):
    inputs = make_line()
    whole = run_it(inputs, work="whole").digest
    draws = []
    draw = stages.sampling.pieces.Sampler.draw

    def stopping_draw(self, start, stop):
        draws.append(start)
        if len(draws) == 2:
            raise Interrupted("killed in the middle of the second piece")
        return draw(self, start, stop)

    monkeypatch.setattr(stages.sampling.pieces.Sampler, "draw", stopping_draw)
    with pytest.raises(Interrupted):
        run_it(inputs, work="halves")
    assert run_it(inputs, work="halves").digest == whole
    assert draws == [0, GROUP, GROUP]


def test_a_killed_small_job_grows_to_the_bytes_of_an_undisturbed_large_one(monkeypatch):
    inputs = make_line()
    count = 5 * GROUP + 11
    whole = run_it(inputs, work="whole", count=count, batch_size=7).digest
    run_it(inputs, work="grown", count=GROUP - 3, batch_size=1)
    write = stages.sampling.pieces.write_arrays

    def dying_write(path, arrays):
        path.with_name(f".{path.name}").write_bytes(b"half a piece")
        raise KeyboardInterrupt

    monkeypatch.setattr(stages.sampling.pieces, "write_arrays", dying_write)
    with pytest.raises(KeyboardInterrupt):
        run_it(inputs, work="grown", count=count, batch_size=2 * GROUP)
    monkeypatch.setattr(stages.sampling.pieces, "write_arrays", write)
    # batch_size is one of the numbers that the artifact tells, not one that shapes it.
    run_it(inputs, work="grown", count=count, batch_size=3 * GROUP)
    assert run_it(inputs, work="grown", count=count, batch_size=7).digest == whole


def test_a_stop_between_pieces_interrupts():
    inputs = make_line()
    params = parse_params(
        Params, {"device": "cpu", "sampling": SAMPLING}, source="params.yaml", strict=True
    )
    stop = threading.Event()
    stop.set()
    Path("work").mkdir()
    with pytest.raises(Interrupted):
        sample(params, Run("sample", Path("work"), inputs, NullTracker(), stop))
    assert not OUTPUT.exists()


def test_a_prior_of_another_autoencoder_is_refused_and_both_are_named():
    inputs = make_line(autoencoder_digest="f" * 64)
    with pytest.raises(ArtifactError) as refusal:
        run_it(inputs)
    assert "f" * 64 in str(refusal.value)
    assert inputs["autoencoder"].digest in str(refusal.value)
