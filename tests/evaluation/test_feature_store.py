"""Features are those of the network, computed once, whatever kills the process in between."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stages.core.errors import Interrupted
from stages.core.shapes import ImageShape
from stages.evaluation import feature_store
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.extractors.base import Extractor, PixelRule

IMAGE = ImageShape(3, 4, 5)
CPU = torch.device("cpu")


class Sums(Extractor):
    """Sums of rows, and as logits of columns of the first channel; counts what it is shown."""

    title, name, distance_name = "sums", "sums", "frechet_sums"
    feature_dim, num_classes, checksum = 12, 5, "first"
    test_accuracy = None

    def __init__(self):
        self.shown = 0
        self.dies_after = None

    @classmethod
    def open(cls, options, image, device):
        return cls()

    @property
    def network(self):
        return nn.Identity()

    def rule(self, image):
        return PixelRule(resize="none", antialias=None, values="v", grey="none")

    def tells_apart(self, class_names):
        return False

    def side(self, image):
        # Two images at once.
        return 2**8, 2**8

    def features(self, pixels):
        self.shown += len(pixels)
        if self.dies_after is not None and self.shown > self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels.float().sum(dim=3).flatten(1), pixels[:, 0].float().sum(dim=1)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(feature_store, "BATCHES_PER_PIECE", 2)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    draw = np.random.default_rng(3)
    np.save(tmp_path / "images.npy", draw.integers(0, 256, (40, *IMAGE), dtype=np.uint8))
    array = np.load(tmp_path / "images.npy", mmap_mode="r")
    return ImageSet("test", array, np.arange(1, 38, 2), np.arange(19) % 4, "test split")


def other(images: ImageSet, array: np.ndarray, rows: np.ndarray) -> ImageSet:
    return ImageSet("train", array, rows, None, "training split")


def store(tmp_path: Path, between=lambda: None) -> FeatureStore:
    return FeatureStore(tmp_path / "features", CPU, between)


def test_features_are_the_networks_and_lie_on_the_disk(tmp_path, images):
    found = store(tmp_path).features(Sums(), images)
    pixels = images.images[1:38:2].astype(np.float32)
    assert isinstance(found.features, np.memmap) and found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, pixels.sum(axis=3).reshape(19, 12))
    np.testing.assert_array_equal(found.logits, pixels[:, 0].sum(axis=1))
    np.testing.assert_array_equal(found.labels, images.labels)


def test_equal_pixels_are_looked_at_once_wherever_they_lie(tmp_path, images):
    network = Sums()
    first = store(tmp_path).features(network, images)
    copied = other(images, np.array(images.images[1:38:2]), np.arange(19))
    again = store(tmp_path).features(network, copied)
    assert network.shown == 19 and again.labels is None
    np.testing.assert_array_equal(again.features, first.features)


@pytest.mark.parametrize("change", ["pixel", "order", "fewer", "weights", "name"])
def test_anything_else_is_another_entry(tmp_path, images, change):
    first, network = Sums(), Sums()
    store(tmp_path).features(first, images)
    array, rows = np.array(images.images), images.rows.copy()
    if change == "pixel":
        array[5, 1, 2, 3] ^= 1
    elif change == "order":
        rows[[0, 1]] = rows[[1, 0]]
    elif change == "fewer":
        rows = rows[:-1]
    elif change == "weights":
        network.checksum = "second"
    else:
        network.name = "totals"
    store(tmp_path).features(network, other(images, array, rows))
    assert network.shown == len(rows)


def test_an_interrupted_run_goes_on_after_its_last_piece(tmp_path, images):
    whole = store(tmp_path / "whole").features(Sums(), images)
    pieces = []

    def stop():
        pieces.append(len(pieces))
        if len(pieces) == 3:
            raise Interrupted("test")

    first, second = Sums(), Sums()
    with pytest.raises(Interrupted):
        store(tmp_path, stop).features(first, images)
    found = store(tmp_path).features(second, images)
    assert (first.shown, second.shown) == (12, 7)
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.logits, whole.logits)


@pytest.mark.parametrize("after", [0, 5, 18])
def test_a_kill_loses_less_than_a_piece(tmp_path, images, after):
    whole = store(tmp_path / "whole").features(Sums(), images)
    child = os.fork()
    if child == 0:
        network = Sums()
        network.dies_after = after
        store(tmp_path).features(network, images)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    network = Sums()
    found = store(tmp_path).features(network, images)
    # Pieces of four images, batches of two.
    assert network.shown == 19 - after // 4 * 4
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.logits, whole.logits)


def test_a_damaged_entry_is_made_again(tmp_path, images):
    first = store(tmp_path).features(Sums(), images)
    expected = np.array(first.features)
    [path] = (tmp_path / "features").glob("*/features.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    network = Sums()
    found = store(tmp_path).features(network, images)
    assert network.shown == 19
    np.testing.assert_array_equal(found.features, expected)


def test_what_was_used_longest_ago_goes_first(tmp_path, images):
    array = np.array(images.images)
    sets = [other(images, array, np.arange(count)) for count in (9, 8, 7, 6)]
    for number, some in enumerate(sets):
        past = store(tmp_path)
        past.features(Sums(), some)
        [key] = past._used
        os.utime(tmp_path / "features" / key, (number, number))
    present, network = store(tmp_path), Sums()
    present.features(network, sets[0])
    size = sum(path.stat().st_size for path in (tmp_path / "features").glob("*/*")) // 4
    present.prune(limit=2 * size)
    assert network.shown == 0
    for some, kept in zip(sets, (True, False, True, True), strict=True):
        network = Sums()
        store(tmp_path).features(network, some)
        assert (network.shown == 0) == kept
