"""Samples at a glance."""

import numpy as np

from stages.core.pictures import grid, labelled_rows
from stages.sampling.picture import class_caption, picture_of_samples

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 6), dtype=np.uint8)


def test_one_captioned_row_per_class():
    labels = np.array([0, 2, 0, 2, 0, 2, 0, 2, 0])
    picture = picture_of_samples(IMAGES, labels, ["zero", "one", "two"])
    expected = labelled_rows([("zero", IMAGES[labels == 0]), ("two", IMAGES[labels == 2])])
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_a_square_grid_without_classes():
    picture = picture_of_samples(IMAGES, np.full(9, -1), None)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(grid(IMAGES, columns=3)))


def test_classes_without_names_are_numbered():
    assert class_caption(2, None) == "class 2"
    assert class_caption(1, ["cat", "dog"]) == "dog"
