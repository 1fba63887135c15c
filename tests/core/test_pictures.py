from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.core.pictures import captioned_grid, grid, labelled_rows, save_png

random = np.random.default_rng(0)


def images(count: int, channels: int, height: int, width: int) -> np.ndarray:
    return random.integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def test_small_images_are_enlarged_by_a_whole_factor_with_thin_gaps() -> None:
    tiles = images(3, 1, 8, 6)
    picture = np.asarray(grid(tiles, columns=2))
    assert picture.shape == (2 * 64 + 2, 2 * 48 + 2, 3)
    np.testing.assert_array_equal(picture[:64:8, :48:8, 0], tiles[0, 0])
    np.testing.assert_array_equal(picture[:64:8, 50::8, 1], tiles[1, 0])
    np.testing.assert_array_equal(picture[66::8, :48:8, 2], tiles[2, 0])
    assert (picture[66:, 50:] == 255).all()


def test_large_colour_images_keep_every_pixel() -> None:
    tiles = images(2, 3, 70, 130)
    picture = np.asarray(grid(tiles, columns=5))
    assert picture.shape == (70, 2 * 130 + 2, 3)
    np.testing.assert_array_equal(picture[:, 132:], tiles[1].transpose(1, 2, 0))


def test_captions_stand_below_their_images() -> None:
    tiles = images(5, 1, 16, 8)
    picture = np.asarray(captioned_grid(tiles, ["a\nb"] * 5, columns=3, side=32))
    width, height = picture.shape[1] // 3, picture.shape[0] // 2
    left = (width - 16) // 2
    for index, tile in enumerate(tiles):
        row, column = divmod(index, 3)
        cell = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        np.testing.assert_array_equal(cell[:32:2, left : left + 16 : 2, 0], tile[0])
        assert (cell[32:] < 128).any()
    assert (picture[height:, 2 * width :] == 255).all()
    with pytest.raises(ValueError, match="caption"):
        captioned_grid(tiles, ["a"], columns=3, side=32)


def test_rows_stand_right_of_their_captions() -> None:
    bare = labelled_rows([("", images(4, 1, 32, 32))])
    named = labelled_rows([("reconstructions", images(4, 1, 32, 32)), ("a", images(2, 3, 9, 9))])
    assert named.width > bare.width + 80
    margin = np.asarray(named)[:, : named.width - (4 * 64 + 6)]
    assert (margin[:64] < 128).any() and (margin[66:] < 128).any()


def test_equal_pictures_give_equal_files(tmp_path: Path) -> None:
    tiles = images(4, 1, 8, 8)
    for name in ("first.png", "second.png"):
        picture = labelled_rows([("digits", tiles)])
        picture.info["comment"] = name
        save_png(picture, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as written:
        assert not written.info
        np.testing.assert_array_equal(np.asarray(written), np.asarray(picture))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 1, 4, 5), np.float32),
        np.zeros((1, 4, 5), np.uint8),
        np.zeros((0, 1, 4, 5), np.uint8),
    ],
)
def test_what_is_not_an_image_array_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        grid(wrong, columns=2)


def test_empty_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        grid(images(2, 1, 4, 5), columns=0)
    with pytest.raises(ValueError, match="row"):
        labelled_rows([])
