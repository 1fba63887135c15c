"""What every source promises, held against every source that works offline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core.errors import ParamsError
from stages.core.sections import Section, load_member, parse_params
from stages.core.shapes import ImageShape
from stages.datasets.base import DatasetOptions, ImageBlock, ImageSource, Rejected

FRACTIONS = {"watch": "data/README.md", "validation_fraction": 0.1, "test_fraction": 0.2}
SHAPES = {
    "kind": "shapes",
    "channels": 1,
    "resolution": 20,
    "supersampling": 2,
    "scales": 2,
    "orientations": 3,
    "columns": 4,
    "rows": 5,
    "hues": 1,
    "count": 0,
    "seed": 0,
}
KINDS = ["digits", "grey_shapes", "colour_shapes", "drawn_shapes", "image_folder"]


class Holder(Section):
    dataset: DatasetOptions


def parse(values: dict[str, Any]) -> DatasetOptions:
    raw = {"dataset": FRACTIONS | values}
    return parse_params(Holder, raw, source="params.yaml", strict=True).dataset


@pytest.fixture(params=KINDS)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetOptions:
    numbers = np.random.default_rng(0)
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (9, 12, 3), np.uint8)).save(tmp_path / name)
    folder = {
        "kind": "image_folder",
        "path": str(tmp_path),
        "resolution": 8,
        "channels": 3,
        "filter": "lanczos",
        "background": "white",
        "on_bad_file": "fail",
    }
    values = {
        "digits": {"kind": "digits"},
        "grey_shapes": SHAPES,
        "colour_shapes": SHAPES | {"channels": 3, "hues": 2},
        "drawn_shapes": SHAPES | {"channels": 3, "hues": 2, "count": 50},
        "image_folder": folder,
    }
    return parse(values[request.param])


def read(options: DatasetOptions) -> tuple[list[ImageBlock], ImageSource]:
    source: ImageSource = load_member(ImageSource, options.kind)(options)
    rejected: list[Rejected] = []
    blocks = list(source.blocks(rejected))
    assert rejected == []
    return blocks, source


def test_blocks_have_the_promised_shape_and_labels(options: DatasetOptions) -> None:
    blocks, source = read(options)
    names = source.class_names()
    assert names and len(set(names)) == len(names)
    assert options.num_classes in (None, len(names))
    assert isinstance(options.image_shape, ImageShape)
    for block in blocks:
        assert block.images.dtype == np.uint8
        assert block.images.shape[1:] == options.image_shape
        assert block.labels is not None and block.labels.dtype == np.int64
        assert block.labels.shape == (len(block.images),)
        assert 0 <= block.labels.min() and block.labels.max() < len(names)
        assert all(factor.shape == (len(block.images),) for factor in block.factors.values())


def test_reading_twice_gives_the_same(options: DatasetOptions) -> None:
    (once, first), (again, second) = read(options), read(options)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert first.provenance() == second.provenance() != {}


def test_digits_span_the_whole_range() -> None:
    (block,), _ = read(parse({"kind": "digits"}))
    assert block.images.shape == (1797, 1, 8, 8)
    assert (block.images.min(), block.images.max()) == (0, 255)
    # The first digit of the set is a zero with an empty middle.
    assert block.labels[0] == 0 and block.images[0, 0, 3, 3:5].max() < 255 / 4


def test_fractions_must_leave_something_to_train_on() -> None:
    with pytest.raises(ParamsError, match=r"validation_fraction \+ test_fraction must stay below"):
        parse({"kind": "digits", "validation_fraction": 0.5, "test_fraction": 0.5})


def test_more_shapes_than_combinations_are_refused() -> None:
    with pytest.raises(ParamsError, match="count must not exceed the 360 combinations"):
        parse(SHAPES | {"count": 361})
    with pytest.raises(ParamsError, match="hues must be 1"):
        parse(SHAPES | {"hues": 2})


def test_the_background_must_be_an_opaque_colour() -> None:
    values = {
        "kind": "image_folder",
        "path": "x",
        "resolution": 8,
        "channels": 3,
        "filter": "box",
        "on_bad_file": "fail",
    }
    for background in ("snowy", "#00000000"):
        with pytest.raises(ParamsError, match=r"dataset\.background|background must be an opaque"):
            parse(values | {"background": background})
