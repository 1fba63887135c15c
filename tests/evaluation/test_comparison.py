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
    assert figures["reconstruction_frechet_sums"].value == pytest.approx(0, abs=1e-9)
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
    found = nearest_training_images(sets, rows, 7, nothing)
    for queries, distances, places in (
        (sets["samples"].features[:7], found.sample_distances, found.sample_rows),
        (sets["test"].features[:7], found.test_distances, None),
    ):
        expected = np.linalg.norm(queries[:, None] - sets["train"].features[None], axis=2)
        order = expected.argsort(axis=1)[:, :NEIGHBOURS]
        np.testing.assert_allclose(
            distances.numpy(), np.take_along_axis(expected, order, axis=1), rtol=1e-5
        )
        if places is not None:
            np.testing.assert_array_equal(places.numpy(), rows[order])
    assert found.usual == pytest.approx(np.median(found.test_distances[:, 0].numpy()))
    assert found.memorisation.samples == found.memorisation.test == 7
