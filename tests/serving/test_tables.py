"""Tables of requests are read as MLflow's users write them, and a mistake is told by its row."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.core.errors import ParamsError
from stages.serving.requested import ImageServer, Wanted
from stages.serving.tables import answered, png_of, read_table
from tests.serving.lines import opened


@pytest.fixture(scope="module")
def server(codes_line: Path) -> ImageServer:
    line = opened(codes_line)
    return ImageServer(line.trained, line.options)


def test_names_numbers_and_what_is_missing(server: ImageServer) -> None:
    table = pd.DataFrame(
        {
            "class": ["bag", "2", 1, 1.0, None, float("nan")],
            "seed": [7, 7.0, np.int32(7), None, 0, 0],
            "index": [0, 1, 2, 3, 4, 5],
            "temperature": [0.5, 1, None, 2.0, 1.0, 1.0],
        },
        dtype=object,
    )
    assert read_table(table, server) == [
        Wanted(1, 7, 0, 0.5),
        Wanted(2, 7, 1, 1.0),
        Wanted(1, 7, 2, 1.0),
        Wanted(1, 5, 3, 2.0),
        Wanted(1, 0, 4, 1.0),
        Wanted(2, 0, 5, 1.0),
    ]
    only = read_table(pd.DataFrame({"seed": [3]}), server)
    assert only == [Wanted(0, 3, 0, 1.0)]


def test_the_answer_has_a_row_for_each_and_its_picture(server: ImageServer) -> None:
    table = pd.DataFrame({"class": ["bag", "sneaker"], "seed": [7, 8]}, index=[31, 4])
    answer = answered(table, server)
    assert answer.index.tolist() == [31, 4]
    assert answer["class"].tolist() == ["bag", "sneaker"]
    images = server.images([Wanted(1, 7, 0, 1.0), Wanted(0, 8, 0, 1.0)])
    for png, image in zip(answer["png"], images, strict=True):
        with Image.open(io.BytesIO(png)) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image[0])


def test_colour_is_kept() -> None:
    image = np.arange(3 * 2 * 5, dtype=np.uint8).reshape(3, 2, 5)
    with Image.open(io.BytesIO(png_of(image))) as picture:
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), image)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"class": "snaeker"}, "row 0: class 'snaeker' .* did you mean 'sneaker'"),
        ({"class": 3}, "row 0: class '3'"),
        ({"seed": -1}, "row 0: seed must be an integer from 0 to .*; got -1"),
        ({"seed": 2**63}, "row 0: seed must be"),
        ({"seed": "seven"}, "row 0: seed must be .* got 'seven'"),
        ({"index": 1.5}, "row 0: index must be .* got 1.5"),
        ({"seed": float("inf")}, "row 0: seed must be"),
        ({"temperature": 0}, "row 0: temperature must be a number from 1e-06 to 1e.06; got 0"),
        ({"temperature": 1e-40}, "row 0: temperature must be"),
        ({"temperature": "hot"}, "row 0: temperature must be"),
        ({"sead": 1}, "columns must be among class, seed, temperature, index; got sead"),
    ],
)
def test_mistakes_are_named(server: ImageServer, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        answered(pd.DataFrame([row], dtype=object), server)
