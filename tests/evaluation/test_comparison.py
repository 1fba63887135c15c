"""What is compared with what, under which names."""

import numpy as np
import pytest

from stages.core.errors import Interrupted
from stages.evaluation.comparison import Comparison
from stages.evaluation.nearest import NEIGHBOURS, nearest_training_images
from stages.metrics.feature_set import FeatureSet
from tests.evaluation.test_feature_store import Sums
from tests.metrics.examples import PROTOCOL
from tests.metrics.feature_sets import OPTIONS

CLASSES = ["one", "two", "three"]
SETS = ("test", "train", "samples", "reconstructions")


def nothing() -> None:
    pass


def drawn(count: int, seed: int) -> FeatureSet:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = (random.normal(size=(count, 4)) + labels[:, None]).astype(np.float32)
    return FeatureSet(features, np.eye(3, dtype=np.float32)[labels] * 5, labels)


def compared(sets: dict[str, FeatureSet], suffix: str = "", knows: bool = True) -> Comparison:
    network = Sums()
    network.tells_apart = lambda names: knows and names == CLASSES
    protocols = {name: PROTOCOL.also(images=name) for name in (*SETS, "floor")}
    return Comparison(network, sets, protocols, CLASSES, OPTIONS, 3, suffix)


@pytest.fixture(scope="module")
def sets() -> dict[str, FeatureSet]:
    test = drawn(60, 0)
    return {"test": test, "train": drawn(75, 1), "samples": drawn(45, 2), "reconstructions": test}


def test_each_set_has_its_names_and_its_protocol(sets):
    figures = {one.name: one for one in compared(sets).figures(nothing)}
    for name in ("reconstruction_frechet_sums", "reconstruction_kernel_sums"):
        assert figures[name].value == pytest.approx(0, abs=1e-9)
        assert figures[name].protocol.details["sets"].startswith("paired")
    assert "sets" not in figures["kernel_sums"].protocol.details
    for name, of, n in (
        ("frechet_sums", "samples", 45),
        ("reconstruction_frechet_sums", "reconstructions", 60),
        ("frechet_sums_floor", "floor", 45),
        ("kernel_sums_floor", "floor", 45),
        ("density_sums", "samples", 45),
        ("class_accuracy", "samples", 45),
    ):
        assert (figures[name].protocol.images, figures[name].n) == (of, n)
    assert figures["frechet_sums"].interval is not None
    assert not [name for name in figures if name.startswith("reconstruction_precision")]


def test_samples_that_are_training_images_stand_on_the_floor(sets):
    chosen = sets["train"].rows(np.arange(45) * 75 // 45)
    figures = {
        one.name: one.value for one in compared({**sets, "samples": chosen}).figures(nothing)
    }
    for what in ("frechet", "frechet_infinity", "kernel", "precision", "recall", "coverage"):
        assert figures[f"{what}_sums"] == pytest.approx(figures[f"{what}_sums_floor"], rel=1e-9)


def test_classes_are_asked_only_of_a_network_that_tells_them_apart(sets):
    knowing, not_knowing = compared(sets, "_sums"), compared(sets, "_sums", knows=False)
    names = {one.name: one.value for one in knowing.figures(nothing) if "accuracy" in one.name}
    assert names == dict.fromkeys(
        ("class_accuracy_sums", "reconstruction_class_accuracy_sums", "test_class_accuracy_sums"), 1
    )
    assert not [one for one in not_knowing.figures(nothing) if "accuracy" in one.name]
    assert {"frechet_sums", "frechet_floor_sums", "kernel_sums"} < {*not_knowing.per_class()}
    table = knowing.per_class()
    assert list(table["name"]) == CLASSES and list(table["samples_images_sums"]) == [15] * 3
    assert "samples_accuracy_sums" not in not_knowing.per_class()


def test_it_stops_between_distances(sets):
    calls = iter(range(100))

    def between() -> None:
        if next(calls) == 3:
            raise Interrupted("test")

    with pytest.raises(Interrupted):
        compared(sets).figures(between)


def test_nearest_training_images_are_those_of_brute_force(sets):
    rows = np.arange(75) * 2 + 1
    found = nearest_training_images(sets, rows, 8, 3, nothing)
    for queries, distances, places in (
        (sets["samples"].features[found.samples], found.sample_distances, found.sample_rows),
        (sets["test"].features, found.test_distances, None),
    ):
        expected = np.linalg.norm(queries[:, None] - sets["train"].features[None], axis=2)
        order = expected.argsort(axis=1)[:, :NEIGHBOURS]
        nearest = np.take_along_axis(expected, order, axis=1)
        if places is None:
            # Some eight of them, whichever.
            assert len(distances) == 8
            assert all(np.isclose(nearest, one, rtol=1e-5).all(axis=1).any() for one in distances)
            continue
        np.testing.assert_allclose(distances.numpy(), nearest, rtol=1e-5)
        np.testing.assert_array_equal(places.numpy(), rows[order])
    assert len(set(found.samples.tolist())) == 8
    assert found.usual == pytest.approx(np.median(found.test_distances[:, 0].numpy()))
    assert found.memorisation.samples == found.memorisation.test == 8


def test_sets_that_are_not_cut_are_asked_in_their_order(sets):
    found = nearest_training_images(sets, np.arange(75), 60, 3, nothing)
    assert found.samples.tolist() == list(range(45))
    expected = np.linalg.norm(
        sets["test"].features[:, None] - sets["train"].features[None], axis=2
    ).min(axis=1)
    np.testing.assert_allclose(found.test_distances[:, 0].numpy(), expected, rtol=1e-5)


def of_classes(random: np.random.Generator, labels: np.ndarray) -> FeatureSet:
    """Five classes far apart, each wider than the one before."""
    wide = 2.0 ** labels[:, None]
    features = 1000 * labels[:, None] + wide * random.normal(size=(len(labels), 4))
    return FeatureSet(features.astype(np.float32), None, labels)


def test_a_perfect_model_is_not_accused_where_splits_stand_class_by_class():
    # As folders are read: 400 test images, of which the first 50 are of the widest class alone.
    flags, shares = 0, []
    for seed in range(30):
        random = np.random.default_rng(seed)
        sets = {
            "train": of_classes(random, np.repeat(np.arange(5), 100)),
            "test": of_classes(random, np.repeat(np.arange(5)[::-1], 80)),
            "samples": of_classes(random, np.arange(250) % 5),
        }
        found = nearest_training_images(sets, np.arange(500), 50, seed, nothing)
        asked = sets["samples"].labels[found.samples]
        # Evenly spaced samples would all be of one class.
        assert set(asked) == set(range(5))
        flags += found.memorisation.flagged
        shares.append(found.memorisation.share)
    # k = 1 of 50: one in 51 on average, seven or more of fifty in less than 1 of 100 trials.
    assert flags <= 3
    assert np.mean(shares) == pytest.approx(1 / 51, abs=0.02)
