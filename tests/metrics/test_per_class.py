import numpy as np
import pytest

from stages.metrics.frechet import gaussian_distance
from stages.metrics.kernel import kernel_distance
from stages.metrics.per_class import class_distances
from tests.metrics.feature_sets import feature_set

random = np.random.default_rng(0)


def labelled(counts: dict[int, int], shift: dict[int, float] | None = None):
    labels = np.repeat(list(counts), list(counts.values()))
    offsets = np.array([(shift or {}).get(label, 0.0) for label in labels])
    order = random.permutation(len(labels))
    features = (random.normal(size=(len(labels), 6)) + offsets[:, None])[order]
    return feature_set(features, labels=labels[order])


def test_a_row_is_the_distance_of_that_class_alone() -> None:
    reference = labelled({0: 30, 1: 20, 2: 25})
    samples = labelled({0: 12, 1: 15, 2: 5}, shift={1: 3.0})
    table = class_distances(samples, reference, None, num_classes=3, seed=1)
    for label in range(3):
        sets = samples.of_class(label), reference.of_class(label)
        expected = gaussian_distance(*(images.gaussian for images in sets))
        assert table.frechet[label] == pytest.approx(expected)
        assert table.kernel[label] == pytest.approx(kernel_distance(*sets).value)
    assert table.kernel.idxmax() == 1
    assert table.samples_n.tolist() == [12, 15, 5]
    assert table.reference_n.tolist() == [30, 20, 25]
    # Five images in six dimensions.
    assert table.singular.tolist() == [False, False, True]
    assert table.frechet_floor.isna().all() and table.floor_n.tolist() == [0, 0, 0]


def test_the_floor_has_as_many_images_as_the_samples() -> None:
    reference, train = labelled({0: 30, 1: 30}), labelled({0: 200, 1: 9})
    samples = labelled({0: 20, 1: 14})
    table = class_distances(samples, reference, train, num_classes=2, seed=1)
    assert table.floor_n.tolist() == [20, 9]
    # Alike: what so few images cost, and not the 200's.
    full = gaussian_distance(train.of_class(0).gaussian, reference.of_class(0).gaussian)
    assert table.frechet_floor[0] > 1.5 * full


def test_a_class_nobody_drew_stays_empty() -> None:
    table = class_distances(
        labelled({0: 9, 2: 3}), labelled({0: 9, 1: 8, 2: 9}), None, num_classes=3, seed=1
    )
    assert table.samples_n.tolist() == [9, 0, 3]
    assert table.frechet.isna().tolist() == [False, True, True]
    assert table.kernel.isna().tolist() == [False, True, True]
