"""A table of requests, as it arrives from anybody, and the table of pictures that answers it.

| column        | is                                           | where it is missing              |
|---------------|----------------------------------------------|----------------------------------|
| `class`       | a name or number of a class                  | image i is of class i mod classes|
| `seed`        | an integer from 0                            | that of the line                 |
| `temperature` | from 1e-6 to 1e6                             | that of the line                 |
| `index`       | which image of the seed, from 0              | 0                                |

The answer has a row for each, in the same order and under the same index: `class`, `seed`,
`index`, `temperature` as they were understood, and `png`, the picture as bytes.
"""

import io
import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from stages.core.errors import ParamsError
from stages.sampling.options import LARGEST_TEMPERATURE, LEAST_TEMPERATURE
from stages.sampling.picture import class_caption
from stages.sampling.request import label_of
from stages.serving.requested import ImageServer, Wanted

__all__ = ["COLUMNS", "answered", "png_of", "read_table"]

COLUMNS = ("class", "seed", "temperature", "index")
_LARGEST = 2**63 - 1


def read_table(table: pd.DataFrame, server: ImageServer) -> list[Wanted]:
    """The requests of a table.

    Args:
        table: With some of `COLUMNS` and no others.
        server: Knows the classes, and what stands for a value that is missing.

    Raises:
        ParamsError: Naming row, column, what must hold and what came.
    """
    if unknown := [str(name) for name in table.columns if name not in COLUMNS]:
        raise ParamsError(
            f"columns must be among {', '.join(COLUMNS)}; got {', '.join(unknown)} besides"
        )
    return [_wanted(row, place, server) for place, row in enumerate(table.to_dict("records"))]


def answered(table: pd.DataFrame, server: ImageServer) -> pd.DataFrame:
    """The pictures that a table asks for.

    Args:
        table: As for `read_table`.
        server: Draws them.

    Raises:
        ParamsError: As `read_table`, and if the prior cannot do what the settings ask for.
    """
    wanted = read_table(table, server)
    names = server.trained.second.class_names
    images = server.images(wanted)
    return pd.DataFrame(
        {
            "class": [
                class_caption(each.label, names) if server.classes else None for each in wanted
            ],
            "seed": [each.seed for each in wanted],
            "index": [each.index for each in wanted],
            "temperature": [each.temperature for each in wanted],
            "png": [png_of(image) for image in images],
        },
        index=table.index,
    )


def png_of(image: UInt8[np.ndarray, "channels height width"]) -> bytes:
    """An image as a PNG file without metadata: equal images give equal bytes."""
    file = io.BytesIO()
    plain = image[0] if len(image) != 3 else image.transpose(1, 2, 0)
    Image.fromarray(plain).save(file, format="PNG", optimize=False, compress_level=9)
    return file.getvalue()


def _wanted(row: dict[Any, Any], place: int, server: ImageServer) -> Wanted:
    options = server.options
    index = _whole(row.get("index"), 0, "index", place)
    return Wanted(
        label=_label(row.get("class"), index, place, server),
        seed=_whole(row.get("seed"), options.seed, "seed", place),
        index=index,
        temperature=_temperature(row.get("temperature"), options.temperature, place),
    )


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _label(value: Any, index: int, place: int, server: ImageServer) -> int:
    if _missing(value):
        return server.classes[index % len(server.classes)] if server.classes else -1
    trained = server.trained
    # A column of numbers with one missing is of floating point.
    number = isinstance(value, float | np.floating) and float(value).is_integer()
    name = str(int(value)) if number else str(value)
    try:
        return label_of(name, trained.second.class_names, trained.num_classes)
    except ParamsError as error:
        raise ParamsError(f"row {place}: {error}") from None


def _whole(value: Any, default: int, column: str, place: int) -> int:
    if _missing(value):
        return default
    try:
        number = int(value)
        if isinstance(value, bool) or number != value or not 0 <= number <= _LARGEST:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ParamsError(
            f"row {place}: {column} must be an integer from 0 to {_LARGEST}; got {value!r}"
        ) from None
    return number


def _temperature(value: Any, default: float, place: int) -> float:
    if _missing(value):
        return default
    try:
        number = float(value)
    except (ValueError, TypeError):
        number = math.nan
    if not LEAST_TEMPERATURE <= number <= LARGEST_TEMPERATURE:
        raise ParamsError(
            f"row {place}: temperature must be a number from {LEAST_TEMPERATURE:g} to "
            f"{LARGEST_TEMPERATURE:g}; got {value!r}"
        )
    return number
