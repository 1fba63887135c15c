"""Which pixels are known, and which cells that settles."""

import numpy as np
import pytest
from PIL import Image

from stages.bottlenecks.base import LatentSpec
from stages.completion.masks import NAMED, filled_in, known_cells, read_mask
from stages.core.errors import ParamsError

HEIGHT, WIDTH = 8, 12


@pytest.mark.parametrize(
    ("one", "other"),
    [("upper_half", "lower_half"), ("left_half", "right_half"), ("centre", "border")],
)
def test_named_masks_come_in_pairs_that_cover_the_image_once(one, other):
    first, second = (NAMED[name](HEIGHT, WIDTH) for name in (one, other))
    assert first.dtype == bool and first.shape == (HEIGHT, WIDTH)
    assert (first ^ second).all() and first.any() and second.any()
    assert not NAMED["none"](HEIGHT, WIDTH).any()
    assert NAMED["centre"](HEIGHT, WIDTH).sum() == 4 * 6


def test_a_cell_is_known_when_all_of_its_patch_is():
    mask = NAMED["upper_half"](HEIGHT, WIDTH)
    mask[:, 0] = False
    spec = LatentSpec("codes", 4, 3, num_codes=5)
    assert known_cells(mask, spec).tolist() == [[False, True, True]] * 2 + [[False] * 3] * 2
    # Three rows of cells over eight of pixels: 0-2, 2-5, 5-7; those that overlap need both.
    uneven = LatentSpec("codes", 3, 2, num_codes=5)
    halves = known_cells(NAMED["upper_half"](HEIGHT, WIDTH), uneven)
    assert halves.tolist() == [[True, True], [False, False], [False, False]]
    whole = LatentSpec("continuous", 1, 1, channels=7)
    assert not known_cells(mask, whole).any()
    assert known_cells(np.ones((HEIGHT, WIDTH), bool), whole).all()


def test_several_grids_stand_end_to_end():
    spec = LatentSpec("codes", 1, 2 + 12, num_codes=5, parts=((1, 2), (4, 3)))
    known = known_cells(NAMED["left_half"](HEIGHT, WIDTH), spec)
    assert known.shape == (1, 14)
    assert known[0, :2].tolist() == [True, False]
    assert known[0, 2:].reshape(4, 3).tolist() == [[True, False, False]] * 4


def test_hidden_pixels_leave_no_trace():
    image = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
    mask = NAMED["left_half"](HEIGHT, WIDTH)
    other = np.where(mask, image, 255 - image)
    filled = filled_in(image, mask)
    np.testing.assert_array_equal(filled, filled_in(other, mask))
    np.testing.assert_array_equal(filled[:, mask], image[:, mask])
    np.testing.assert_array_equal(filled[:, :, 6:], np.repeat(image[:, :, 5:6], 6, axis=2))
    assert (filled_in(image, ~mask & mask) == 128).all()


def test_masks_are_read_from_pictures_and_arrays(tmp_path):
    mask = NAMED["border"](HEIGHT, WIDTH)
    Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", mask)
    for name in ("mask.png", "mask.npy"):
        np.testing.assert_array_equal(read_mask(str(tmp_path / name), HEIGHT, WIDTH), mask)
    assert read_mask("border", HEIGHT, WIDTH).sum() == mask.sum()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((3, 5), bool), "must hold 8 rows of 12 pixels"),
        (np.ones((HEIGHT, WIDTH)), "holds float64"),
        (None, "must be one of none, upper_half"),
        (b"no array", "neither a picture nor an array"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, content, message):
    path = tmp_path / "mask.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ParamsError, match=message):
        read_mask(str(path), HEIGHT, WIDTH)
