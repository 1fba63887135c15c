"""The rendered shapes are what their factors say."""

from typing import Any

import numpy as np
import pytest

from stages.datasets.shapes import _REACH, SHAPES, SIDE, Shapes, ShapesOptions

OPTIONS: dict[str, Any] = {
    "kind": "shapes",
    "watch": "data/README.md",
    "validation_fraction": 0.1,
    "test_fraction": 0.1,
    "resolution": 48,
    "channels": 1,
    "supersampling": 4,
    "scales": 3,
    "orientations": 5,
    "columns": 3,
    "rows": 2,
    "hues": 1,
    "count": 0,
    "seed": 0,
}


def render(**changes: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    blocks = list(Shapes(ShapesOptions(**OPTIONS | changes)).blocks([]))
    factors = {
        name: np.concatenate([block.factors[name] for block in blocks])
        for name in blocks[0].factors
    }
    return np.concatenate([block.images for block in blocks]), factors


@pytest.fixture(scope="module")
def factorial() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return render(supersampling=8)


def test_the_factorial_is_whole(factorial: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    images, factors = factorial
    assert images.shape == (3 * 3 * 5 * 3 * 2, 1, 48, 48)
    cells = set(zip(*(values.tolist() for values in factors.values()), strict=True))
    assert len(cells) == len(images)
    assert {name: len(np.unique(values)) for name, values in factors.items()} == {
        "shape": 3,
        "scale": 3,
        "orientation": 5,
        "x": 3,
        "y": 2,
    }


def test_area_is_that_of_the_square_of_the_same_scale(
    factorial: tuple[np.ndarray, dict[str, np.ndarray]],
) -> None:
    images, factors = factorial
    area = images.sum(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(area, (48 * SIDE * factors["scale"]) ** 2, rtol=0.04)


def test_centroid_is_at_x_and_y(factorial: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    images, factors = factorial
    weights = images[:, 0] / images.sum(axis=(1, 2, 3))[:, None, None]
    middle = np.arange(48) + 0.5
    for name, axis in (("x", 1), ("y", 2)):
        centroid = weights.sum(axis=axis) @ middle
        wanted = 48 * (_REACH + factors[name] * (1 - 2 * _REACH))
        np.testing.assert_allclose(centroid, wanted, atol=0.15)


def test_no_shape_touches_the_border() -> None:
    images, _ = render(orientations=24, scales=1)
    frame = images.copy()
    frame[:, :, 1:-1, 1:-1] = 0
    assert images.any() and not frame.any()


def test_a_quarter_turn_is_a_quarter_turn_counter_clockwise() -> None:
    images, factors = render(orientations=4, columns=1, rows=1, scales=1)
    for shape in range(3):
        turns = images[factors["shape"] == shape, 0]
        for quarters in range(4):
            expected = np.rot90(turns[0], quarters)
            assert np.abs(turns[quarters].astype(int) - expected).max() <= 64
    hearts = images[factors["shape"] == SHAPES.index("heart"), 0]
    assert (hearts[0] != hearts[1]).mean() > 0.02


def test_the_heart_stands_on_its_tip() -> None:
    images, factors = render(orientations=1, columns=1, rows=1, scales=1)
    heart = images[factors["shape"] == SHAPES.index("heart"), 0][0]
    np.testing.assert_array_equal(heart, heart[:, ::-1])
    rows = np.flatnonzero(heart.any(axis=1))
    assert (heart[rows[-2]] > 0).sum() < (heart[rows[1]] > 0).sum()


def test_hue_changes_colour_only() -> None:
    images, factors = render(channels=3, hues=6, resolution=20)
    assert images.shape[1] == 3 and "hue" in factors
    brightest = images.max(axis=1).reshape(-1, 6, 20, 20)
    np.testing.assert_array_equal(brightest, brightest[:, :1].repeat(6, axis=1))
    red, green = images[factors["hue"] == 0], images[factors["hue"] == 2 / 6]
    assert red[:, 0].any() and not red[:, 1:].any()
    np.testing.assert_array_equal(red[:, 0], green[:, 1])


def test_crisp_edges_are_black_or_white() -> None:
    assert set(np.unique(render(supersampling=1)[0])) == {0, 255}
    assert len(np.unique(render()[0])) > 2


def test_a_sample_holds_each_combination_once_and_depends_on_the_seed() -> None:
    drawn, factors = render(count=40)
    cells = set(zip(*(values.tolist() for values in factors.values()), strict=True))
    assert len(drawn) == len(cells) == 40
    assert not np.array_equal(drawn, render(count=40, seed=1)[0])
    np.testing.assert_array_equal(drawn, render(count=40)[0])
