"""Encoding: rows are latents of the images they name, scaled once; a kill loses at most a piece."""

import math
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stages.assembly.first_stage import FirstStage, FirstStageParams
from stages.autoencoders.base import Autoencoder
from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import Artifact, new_artifact
from stages.core.errors import ArtifactError, Interrupted, ParamsError
from stages.core.intensities import from_pixels
from stages.core.ranks import is_first_process
from stages.core.sections import validate
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import Tracker
from stages.encoding.dataset import encode_dataset
from stages.encoding.options import EncodeOptions
from stages.nn.distributions import DiagonalGaussian
from stages.stores.latents import open_latents
from stages.stores.prepared import PreparedWriter, open_prepared
from tests.processes import in_processes

IMAGE = ImageShape(channels=3, height=4, width=6)
COUNTS = {"train": 11, "validation": 4, "test": 5}
CLASSES, CHANNELS, NUM_CODES = 7, 5, 300
BOTH_VIEWS = ["identity", "horizontal_flip"]
CODES = LatentSpec("codes", grid_height=2, grid_width=3, num_codes=NUM_CODES)
GAUSSIAN = LatentSpec("continuous", grid_height=2, grid_width=3, channels=CHANNELS)
POINTS = LatentSpec("continuous", 2, 3, channels=CHANNELS, deterministic=True)


class PoolingAutoencoder(Autoencoder):
    """Latents are averages of 2 x 2 pixels, so what must be stored is known in closed form."""

    def __init__(self, spec):
        nn.Module.__init__(self)
        self.stored = spec
        self.log_variance = -1.0
        self.calls = 0
        self.on_call = lambda calls: None

    @property
    def spec(self):
        return self.stored

    def forward(self, images, labels=None, generator=None, step=None):
        raise AssertionError("encoding trains nothing")

    def encode(self, images, labels=None):
        self.calls += 1
        self.on_call(self.calls)
        pooled = nn.functional.avg_pool2d(images, 2)
        if self.stored.kind == "codes":
            return ((pooled.mean(1) + 1) / 2 * (NUM_CODES - 1)).round().long()
        mixing = torch.linspace(-2, 3, CHANNELS * 3).reshape(CHANNELS, 3)
        mean = torch.einsum("oc,bchw->bohw", mixing, pooled) + 1.5
        return DiagonalGaussian(mean, self.log_variance + 0.1 * mean)

    def decode(self, latents, labels=None):
        return latents


class Record(Tracker):
    """Keeps the figures that were logged."""

    def __init__(self):
        self.metrics = {}

    def _append(self, kind, file=None, **fields):
        self.metrics |= fields.get("metrics", {})

    def identity(self):
        return {}

    def close(self, status):
        pass


@pytest.fixture
def prepared(tmp_path):
    """Random images of three splits."""
    numbers = np.random.default_rng(0)
    about = {"image_shape": list(IMAGE), "class_names": [f"class {k}" for k in range(CLASSES)]}
    with new_artifact(tmp_path / "prepared", "prepared", about) as folder:
        with PreparedWriter(folder, IMAGE) as writer:
            for name, count in COUNTS.items():
                images = numbers.integers(0, 256, (count, *IMAGE)).astype(np.uint8)
                writer.add(name, images, numbers.integers(0, CLASSES, count), {})
    return open_prepared(tmp_path / "prepared")


def artifact(type, letter):
    return Artifact(Path(type), type, letter * 64, {}, {})


def options(**changes):
    values = {"views": BOTH_VIEWS, "batch_size": 3, "rows_per_shard": 8, "precision": "float32"}
    return validate(EncodeOptions, values | changes, source="params.yaml")


def first_stage(autoencoder):
    params = FirstStageParams.model_construct()
    return FirstStage(autoencoder, IMAGE, CLASSES, artifact("autoencoder", "a"), params)


def run_in(work):
    work.mkdir(parents=True, exist_ok=True)
    return Run("encode", work, {}, Record(), threading.Event())


def encoded(tmp_path, prepared, autoencoder, run=None, **changes):
    output = tmp_path / "latents"
    run = run or run_in(tmp_path / "work")
    stage = first_stage(autoencoder)
    encode_dataset(prepared, stage, options(**changes), run, torch.device("cpu"), output)
    return open_latents(output, scratch=tmp_path / "scratch")


def own_latents(autoencoder, prepared, split):
    """What the autoencoder says of the images that the rows name, in the views they name."""
    images = torch.from_numpy(np.array(prepared.images)[split.index])
    flipped = torch.from_numpy(np.asarray(split.views == "horizontal_flip"))
    images[flipped] = images[flipped].flip(-1)
    return autoencoder.encode(from_pixels(images))


def test_rows_are_codes_of_the_views_they_name(tmp_path, prepared):
    autoencoder = PoolingAutoencoder(CODES)
    dataset = encoded(tmp_path, prepared, autoencoder)
    assert dataset.spec == CODES
    assert dataset.autoencoder_digest == "a" * 64
    assert dataset.num_classes == CLASSES
    for name, count in COUNTS.items():
        split, images = dataset.split(name), prepared.split(name)
        views = BOTH_VIEWS if name == "train" else BOTH_VIEWS[:1]
        assert list(split.views) == views * count
        assert np.array_equal(split.index, np.repeat(np.arange(count), len(views)))
        assert np.array_equal(split.labels, np.asarray(images.labels)[split.index])
        codes = split.batch(np.arange(len(split))).codes
        assert torch.equal(codes, own_latents(autoencoder, images, split))
    train = dataset.split("train").batch(np.array([0, 1])).codes
    assert not torch.equal(train[0], train[1]), "a flip changes these codes"
    assert torch.equal(train[0].flip(-1), train[1]), "and pooling commutes with it"


@pytest.mark.parametrize("spec", [GAUSSIAN, POINTS], ids=["gaussian", "points"])
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float16", 1e-3)])
def test_stored_latents_have_unit_variance_and_scale_back(
    tmp_path, prepared, spec, precision, error
):
    autoencoder = PoolingAutoencoder(spec)
    dataset = encoded(tmp_path, prepared, autoencoder, precision=precision)
    scale = dataset.spec.scale
    for name in COUNTS:
        split = dataset.split(name)
        batch = split.batch(np.arange(len(split)))
        own = own_latents(autoencoder, prepared.split(name), split)
        undone = first_stage(autoencoder).parameters(batch.mean, scale)
        torch.testing.assert_close(undone, own.mean, rtol=error, atol=error)
        if spec.deterministic:
            assert batch.log_variance is None
        else:
            undone = batch.log_variance - 2 * math.log(scale)
            torch.testing.assert_close(undone, own.log_variance, rtol=error, atol=2 * error)
    split = dataset.split("train")
    batch = split.batch(np.arange(len(split)))
    variance = batch.mean.double().var(correction=0)
    if not spec.deterministic:
        variance += batch.log_variance.double().exp().mean()
    assert variance.item() == pytest.approx(1.0, abs=2 * error)


def test_the_size_of_a_batch_moves_no_code(tmp_path, prepared):
    for name, size in (("one", 3), ("other", 5)):
        encoded(tmp_path / name, prepared, PoolingAutoencoder(CODES), batch_size=size)
    files = sorted((tmp_path / "one/latents").glob("*.parquet"))
    assert len(files) == 5
    for file in files:
        assert file.read_bytes() == (tmp_path / "other/latents" / file.name).read_bytes()


@pytest.mark.parametrize("stop_at", [1, 3, 8, 12])
def test_an_interrupted_encoding_goes_on_and_gives_the_same_bytes(tmp_path, prepared, stop_at):
    whole = PoolingAutoencoder(GAUSSIAN)
    expected = encoded(tmp_path / "whole", prepared, whole)
    parts = PoolingAutoencoder(GAUSSIAN)
    run = run_in(tmp_path / "parts/work")
    parts.on_call = lambda calls: run.stop.set() if calls == stop_at else None
    with pytest.raises(Interrupted):
        encoded(tmp_path / "parts", prepared, parts, run)
    assert not (tmp_path / "parts/latents").exists()
    found = encoded(tmp_path / "parts", prepared, parts, run_in(run.work))
    assert parts.calls == whole.calls, "no piece is encoded twice"
    assert found.artifact.digest == expected.artifact.digest
    for name in [*expected.artifact.files, "manifest.json"]:
        content = (expected.artifact.path / name).read_bytes()
        assert (found.artifact.path / name).read_bytes() == content


def test_a_kill_in_the_middle_of_a_write_is_no_piece(tmp_path, prepared):
    run = run_in(tmp_path / "work")
    torn = run.work / "pieces/train/00000000.building"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half a piece")
    autoencoder = PoolingAutoencoder(CODES)
    split = encoded(tmp_path, prepared, autoencoder, run).split("train")
    codes = split.batch(np.arange(len(split))).codes
    assert torch.equal(codes, own_latents(autoencoder, prepared.split("train"), split))


def test_the_record_and_the_manifest_agree(tmp_path, prepared):
    run = run_in(tmp_path / "work")
    dataset = encoded(tmp_path, prepared, PoolingAutoencoder(CODES), run)
    train = dataset.about_split("train")
    assert (train["images"], train["rows"], len(train["shards"])) == (11, 22, 3)
    assert sum(train["images_per_class"]) == 11
    codes = dataset.split("train").columns["codes"]
    assert train["code_usage"] == len(np.unique(codes)) / NUM_CODES
    metrics = run.tracker.metrics
    assert metrics["train_code_perplexity"] == train["code_perplexity"]
    assert metrics["validation_rows"] == COUNTS["validation"]
    assert metrics["seconds"] > 0


def test_numbers_beyond_float16_are_refused(tmp_path, prepared):
    autoencoder = PoolingAutoencoder(GAUSSIAN)
    autoencoder.log_variance = -70_000.0
    with pytest.raises(ParamsError, match=r"float16 holds numbers up to 65504.*use float32"):
        encoded(tmp_path, prepared, autoencoder, precision="float16")
    assert not (tmp_path / "latents").exists()
    encoded(tmp_path, prepared, autoencoder, precision="float32")


def test_numbers_that_are_not_finite_are_refused(tmp_path, prepared):
    autoencoder = PoolingAutoencoder(GAUSSIAN)
    autoencoder.log_variance = float("nan")
    with pytest.raises(ArtifactError, match=r"log_variance.*images 0 to 2 of train"):
        encoded(tmp_path, prepared, autoencoder)


def test_an_autoencoder_for_other_images_is_refused(tmp_path, prepared):
    stage = FirstStage(
        PoolingAutoencoder(CODES),
        ImageShape(1, 4, 6),
        CLASSES,
        artifact("autoencoder", "a"),
        FirstStageParams.model_construct(),
    )
    run = run_in(tmp_path / "work")
    with pytest.raises(ArtifactError, match=r"\(3, 4, 6\).*\(1, 4, 6\)"):
        encode_dataset(prepared, stage, options(), run, torch.device("cpu"), tmp_path / "latents")


@pytest.mark.parametrize(
    "changes",
    [
        {"views": ["horizontal_flip"]},
        {"views": ["identity", "identity"]},
        {"views": []},
        {"views": ["vertical_flip"]},
        {"batch_size": 0},
        {"rows_per_shard": 0},
        {"precision": "bfloat16"},
    ],
)
def test_options_that_make_no_sense_are_refused(changes):
    with pytest.raises(ParamsError, match=next(iter(changes))):
        options(**changes)


def encode_in(folder, prepared, die_after=None):
    """One process of several; the second may be lost after so many calls of its autoencoder."""
    autoencoder = PoolingAutoencoder(GAUSSIAN)

    def lost(calls):
        if calls == die_after and not is_first_process():
            os.kill(os.getpid(), signal.SIGKILL)

    autoencoder.on_call = lost
    run = run_in(folder / "work")
    run.is_first = is_first_process()
    output = folder / "latents"
    encode_dataset(prepared, first_stage(autoencoder), options(), run, torch.device("cpu"), output)
    return autoencoder.calls


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes_divide_the_work_and_a_lost_one_s_share_alone_is_redone(tmp_path, prepared):
    one = encode_in(tmp_path / "one", prepared)
    # Both views of 4 pieces of the training split, 2 pieces of each of the others.
    assert one == 2 * 4 + 2 + 2
    both = in_processes(2, encode_in, tmp_path / "two", prepared)
    assert both == [one // 2, one // 2]
    outcome = in_processes(2, encode_in, tmp_path / "lost", prepared, 3)
    assert outcome[1] == "lost" and "Error" in outcome[0], "the other cannot go on alone"
    kept = len(list((tmp_path / "lost/work/pieces").rglob("*.safetensors")))
    assert kept >= 3, "what both had finished is there"
    again = in_processes(2, encode_in, tmp_path / "lost", prepared)
    # Training pieces take two calls, one for each view.
    pieces = [*(tmp_path / "lost/work/pieces").rglob("*.safetensors")]
    assert len(pieces) == 8 and sum(again) < one
    expected = bytes_of(tmp_path / "one/latents")
    assert bytes_of(tmp_path / "two/latents") == bytes_of(tmp_path / "lost/latents") == expected
