"""Rendered shapes whose generative factors are known: every image is a function of them.

    shape         square, ellipse (axes 2:1), heart: equal in area, centroid in the origin
    scale         side of the square of equal area, in units of `SIDE`: 0.5 ... 1
    orientation   2 pi k / n, counter-clockwise
    x, y          centroid, 0 = as far left (up) as the largest shape may go, 1 = right (down)
    hue           k / n at full saturation (colour only)

A pixel's value is the covered share of supersampling^2 points in it; one point gives crisp edges.
The heart is a square on its tip with half a disc on both upper sides, so its area and centroid
are closed forms: of a square of side a, area a^2 (1 + pi/4).

Source: Matthey, Higgins, Hassabis & Lerchner 2017, dSprites (3 x 6 x 40 x 32 x 32 images, 64x64).
Differs: rendered here, not copied; equal areas; the last orientation is not the first again;
colour and smooth edges by choice. As there, symmetric shapes look alike at several orientations.
"""

import colorsys
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from pydantic import Field, model_validator

from stages.core.randomness import permutation
from stages.core.seeds import Seed
from stages.core.shapes import ImageShape
from stages.datasets.base import (
    DatasetOptions,
    ImageBlock,
    ImageSource,
    Rejected,
    images_per_block,
)

__all__ = ["SHAPES", "Shapes", "ShapesOptions"]

SHAPES = ["square", "ellipse", "heart"]
SIDE = 0.3
"""Side of the largest square, in units of the image's side."""

# Semi-axes a = 2 b with pi a b = 1; no point of the three shapes of area 1 is further out than a.
_ELLIPSE = (math.sqrt(2 / math.pi), math.sqrt(1 / (2 * math.pi)))
_REACH = SIDE * _ELLIPSE[0]
_HEART = 1 / math.sqrt(1 + math.pi / 4)
# Two half discs of area pi a^2 / 8, their centroids 4 r / (3 pi) above their straight sides.
_HEART_CENTROID = (math.pi / 4) * _HEART**3 / math.sqrt(2) * (1 / 2 + 2 / (3 * math.pi))


class ShapesOptions(DatasetOptions):
    """Options of `shapes`: the picture, and the levels of its factors."""

    kind: Literal["shapes"]
    resolution: int = Field(ge=8)
    """Side of the images, e.g. 64."""
    channels: Literal[1, 3]
    """1: white on black. 3: the hue is a factor too."""
    supersampling: int = Field(ge=1, le=8)
    """Points per pixel and axis: 1 for crisp edges, 4 for smooth ones."""
    scales: int = Field(ge=1)
    orientations: int = Field(ge=1)
    columns: int = Field(ge=1)
    """Number of positions x."""
    rows: int = Field(ge=1)
    """Number of positions y."""
    hues: int = Field(ge=1)
    """Number of hues; 1 in grey."""
    count: int = Field(ge=0)
    """Images to draw among all combinations, none twice; 0 for all of them."""
    seed: Seed
    """Decides which ones are drawn."""

    @property
    def image_shape(self) -> ImageShape:
        """`channels` of `resolution` x `resolution`."""
        return ImageShape(self.channels, self.resolution, self.resolution)

    @property
    def num_classes(self) -> int:
        """One for each shape."""
        return len(SHAPES)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of values of shape, scale, orientation, x, y and hue."""
        return (len(SHAPES), self.scales, self.orientations, self.columns, self.rows, self.hues)

    @model_validator(mode="after")
    def _combinations_suffice(self) -> "ShapesOptions":
        if self.channels == 1 and self.hues != 1:
            raise ValueError(f"hues must be 1 where channels is 1 (grey); got {self.hues}")
        total = math.prod(self.levels)
        if self.count > total:
            raise ValueError(
                f"count must not exceed the {total} combinations of the factors; got {self.count}"
            )
        return self


class Shapes(ImageSource):
    """All combinations of the factors, or a sample of them, in the order of the factorial."""

    def __init__(self, options: ShapesOptions) -> None:
        self.options = options

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """Render the chosen combinations; the class is the shape."""
        options = self.options
        total = math.prod(options.levels)
        cells = np.arange(total)
        if options.count:
            cells = np.sort(permutation(total, options.seed, "shapes")[: options.count])
        step = images_per_block(options.image_shape)
        for start in range(0, len(cells), step):
            indices = np.unravel_index(cells[start : start + step], options.levels)
            factors = _factors(indices, options.levels)
            if options.channels == 1:
                del factors["hue"]
            images = _render(factors, options.resolution, options.supersampling)
            yield ImageBlock(images, indices[0].astype(np.int64), factors=factors)

    def class_names(self) -> list[str]:
        """The three shapes."""
        return list(SHAPES)

    def provenance(self) -> dict[str, Any]:
        """Rendered: the options say everything."""
        return {"rendered": "all of it, by the options above"}


def _factors(indices: tuple[np.ndarray, ...], levels: tuple[int, ...]) -> dict[str, np.ndarray]:
    _, scales, orientations, columns, rows, hues = levels
    shape, scale, orientation, x, y, hue = indices
    return {
        "shape": shape.astype(np.int64),
        "scale": _levels(0.5, 1.0, scales)[scale],
        "orientation": 2 * math.pi * orientation / orientations,
        "x": _levels(0.0, 1.0, columns)[x],
        "y": _levels(0.0, 1.0, rows)[y],
        "hue": hue / hues,
    }


def _levels(low: float, high: float, count: int) -> np.ndarray:
    """Evenly from low to high; the middle where there is only one."""
    return np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])


def _render(
    factors: dict[str, np.ndarray], size: int, supersampling: int
) -> UInt8[np.ndarray, "count channels size size"]:
    coverage = np.zeros((len(factors["shape"]), size, size))
    # A few images at a time: the coordinates take 8 bytes per pixel and intermediate result.
    step = max(1, 2**18 // size**2)
    for start in range(0, len(coverage), step):
        rows = slice(start, start + step)
        part = {name: values[rows] for name, values in factors.items()}
        for shape in np.unique(part["shape"]):
            chosen = np.flatnonzero(part["shape"] == shape)
            coverage[start + chosen] = _coverage(
                SHAPES[shape], {name: v[chosen] for name, v in part.items()}, size, supersampling
            )
    colours = np.ones((len(coverage), 1))
    if "hue" in factors:
        colours = np.array([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in factors["hue"]])
    return np.round(255 * coverage[:, None] * colours[:, :, None, None]).astype(np.uint8)


def _coverage(
    shape: str, factors: dict[str, np.ndarray], size: int, supersampling: int
) -> Float64[np.ndarray, "count size size"]:
    """Share of each pixel's points that lie inside the shape."""
    column = {name: values[:, None, None] for name, values in factors.items()}
    side = SIDE * column["scale"]
    # Rotation and scaling at once: coordinates in which the shape has area 1.
    cosine, sine = np.cos(column["orientation"]) / side, np.sin(column["orientation"]) / side
    centre_x = _REACH + column["x"] * (1 - 2 * _REACH)
    centre_y = _REACH + column["y"] * (1 - 2 * _REACH)
    inside = 0
    for offset_y in (np.arange(supersampling) + 0.5) / supersampling:
        for offset_x in (np.arange(supersampling) + 0.5) / supersampling:
            right = (np.arange(size)[None, None, :] + offset_x) / size - centre_x
            # Rows count downwards, the shape's second coordinate points up.
            up = centre_y - (np.arange(size)[None, :, None] + offset_y) / size
            u = cosine * right + sine * up
            v = cosine * up - sine * right
            inside = inside + _INSIDE[shape](u, v)
    return inside / supersampling**2


def _square(u: np.ndarray, v: np.ndarray) -> Bool[np.ndarray, "..."]:
    return np.maximum(np.abs(u), np.abs(v)) <= 0.5


def _ellipse(u: np.ndarray, v: np.ndarray) -> Bool[np.ndarray, "..."]:
    return (u / _ELLIPSE[0]) ** 2 + (v / _ELLIPSE[1]) ** 2 <= 1


def _heart(u: np.ndarray, v: np.ndarray) -> Bool[np.ndarray, "..."]:
    v = v + _HEART_CENTROID
    square = np.abs(u) + np.abs(v) <= _HEART / math.sqrt(2)
    centre = _HEART / math.sqrt(8)
    discs = (np.abs(u) - centre) ** 2 + (v - centre) ** 2 <= (_HEART / 2) ** 2
    return square | discs


_INSIDE = {"square": _square, "ellipse": _ellipse, "heart": _heart}
