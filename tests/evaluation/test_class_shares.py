"""Unlike shares of classes are told, like ones are not."""

import numpy as np
import pytest
from scipy.stats import binom

from stages.evaluation.class_shares import CHANCE, ClassShares, class_shares
from stages.evaluation.image_sets import ImageSet

NAMES = ["cat", "dog", "owl"]


def images(*counts: int) -> ImageSet:
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.zeros((len(labels), 1, 2, 3), np.uint8)
    return ImageSet("set", pixels, np.arange(len(labels)), labels, "images")


def shares(samples: ImageSet, test: ImageSet) -> ClassShares:
    found = class_shares(samples, test, NAMES)
    assert found is not None
    return found


def test_equal_turns_against_unlike_classes_are_told() -> None:
    found = shares(images(20, 20, 20), images(21, 7, 3))
    assert found.distance == pytest.approx(21 / 31 - 1 / 3) and found.flagged
    assert "cat has 33% of the samples and 68% of the test images" in found.verdict
    assert "sampling.classes" in found.verdict and len(found.verdict.splitlines()) == 1


def test_the_distance_is_symmetric_and_ignores_how_many_there_are() -> None:
    one, other = images(1, 2, 5), images(10, 3, 1)
    assert shares(one, other).distance == pytest.approx(shares(other, one).distance)
    assert shares(one, images(3, 6, 15)).distance == pytest.approx(0)
    assert shares(images(4, 0, 0), images(0, 1, 1)).distance == pytest.approx(1)


def test_chance_of_a_split_is_not_told() -> None:
    assert not shares(images(4, 4, 4), images(6, 6, 5)).flagged
    # Of a balanced set, drawn at random: unlike by more than a twentieth, as chance has it.
    by_chance = shares(images(36, 36, 36), images(45, 30, 40))
    assert by_chance.distance > 0.05 and not by_chance.flagged
    assert shares(images(360, 360, 360), images(450, 300, 400)).flagged


def test_samples_are_set_and_only_test_images_are_chance() -> None:
    # Sixty heads of a hundred: 2 standard deviations of the test images, 0.0455 on both sides.
    found = shares(images(50, 50), images(60, 40))
    assert found.chance == pytest.approx(0.0455, abs=1e-4) and found.flagged
    assert not shares(images(50, 50), images(59, 41)).flagged
    # As many samples as one likes: they bring no chance.
    assert shares(images(5000, 5000), images(60, 40)).chance == found.chance


def test_alike_shares_are_told_as_often_as_stated_and_unlike_ones_mostly() -> None:
    random, samples = np.random.default_rng(0), np.full(10, 36)

    def told(of_classes: np.ndarray, trials: int = 400) -> int:
        drawn = random.multinomial(385, of_classes, size=trials)
        return sum(ClassShares(samples, test, tuple("abcdefghij")).flagged for test in drawn)

    assert binom.ppf(0.001, 400, CHANCE) <= told(np.full(10, 0.1)) <= binom.ppf(0.999, 400, CHANCE)
    # Half of the classes 1.24 times as large as they should be, half 0.76 times.
    assert told(np.repeat([0.124, 0.076], 5)) > 0.85 * 400


def test_a_class_without_samples_is_no_chance_and_one_without_test_images_may_be() -> None:
    missing = shares(images(30, 30), images(27, 27, 4))
    assert missing.chance == 0 and missing.flagged
    assert not shares(images(30, 30), images(49, 49, 2)).flagged
    assert shares(images(30, 0), images(9, 0)).chance == 1
    assert shares(images(8, 8, 1), images(8, 8)).chance > 0.5
    assert shares(images(8, 8, 8), images(8, 8)).chance < 0.05


def test_without_classes_there_are_no_shares() -> None:
    without = ImageSet("set", np.zeros((2, 1, 2, 3), np.uint8), np.arange(2), None, "images")
    assert class_shares(without, images(1, 1), NAMES[:2]) is None
    assert class_shares(images(1, 1), without, NAMES[:2]) is None
    numbered = class_shares(images(1, 1), images(0, 4), None)
    assert numbered is not None and "class 0 has 50%" in numbered.verdict
