"""Which part of an image is known, and which cells of its latents that settles.

A cell is known when every pixel of its own patch is: with R rows of cells over H rows of pixels,
cell r covers the pixels floor(r H / R) to ceil((r + 1) H / R) - 1, and so with columns. (Its
features also look beyond the patch; what they see there is no hidden pixel, because hidden pixels
are filled with the nearest known one before the image is encoded.)
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError

__all__ = ["NAMED", "Mask", "filled_in", "known_cells", "read_mask"]

Mask = Bool[np.ndarray, "height width"]

_WHITE = 128


def _rows_and_columns(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices((height, width))
    return rows, columns


def _middle(height: int, width: int) -> Mask:
    rows, columns = _rows_and_columns(height, width)
    inside = (rows >= height // 4) & (rows < height - height // 4)
    return inside & (columns >= width // 4) & (columns < width - width // 4)


NAMED: dict[str, Callable[[int, int], Mask]] = {
    "none": lambda height, width: np.zeros((height, width), bool),
    "upper_half": lambda height, width: _rows_and_columns(height, width)[0] < height // 2,
    "lower_half": lambda height, width: _rows_and_columns(height, width)[0] >= height // 2,
    "left_half": lambda height, width: _rows_and_columns(height, width)[1] < width // 2,
    "right_half": lambda height, width: _rows_and_columns(height, width)[1] >= width // 2,
    "centre": _middle,
    "border": lambda height, width: ~_middle(height, width),
}
"""What of an image is known, by name; `centre` is half its height and width, `border` the rest."""


def read_mask(name: str, height: int, width: int) -> Mask:
    """A mask by its name, or from a file: a picture (white: known) or a .npy array of booleans.

    Raises:
        ParamsError: If there is no such mask, or it is not of the size of the images.
    """
    if name in NAMED:
        return NAMED[name](height, width)
    path = Path(name)
    if not path.is_file():
        raise ParamsError(
            f"--mask: must be one of {', '.join(NAMED)}, or a file; got {name!r}, which is neither"
        )
    try:
        if path.suffix == ".npy":
            mask = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("L")) >= _WHITE
    except (OSError, ValueError, UnidentifiedImageError) as error:
        raise ParamsError(f"--mask: {path} is neither a picture nor an array: {error}") from None
    if mask.shape != (height, width) or mask.dtype != bool:
        raise ParamsError(
            f"--mask: must hold {height} rows of {width} pixels, white (or True) where the image "
            f"is known; {path} holds {mask.dtype} {mask.shape}"
        )
    return mask


def known_cells(mask: Mask, spec: LatentSpec) -> Bool[np.ndarray, "grid_height grid_width"]:
    """Which cells of the stored latents are known; several grids stand end to end in one row."""
    if not spec.parts:
        return _covered(mask, spec.grid_height, spec.grid_width)
    return np.concatenate([_covered(mask, *part).ravel() for part in spec.parts])[None]


def _covered(mask: Mask, rows: int, columns: int) -> np.ndarray:
    def patches(pixels: int, cells: int) -> list[slice]:
        return [slice(c * pixels // cells, -(-(c + 1) * pixels // cells)) for c in range(cells)]

    height, width = mask.shape
    return np.array(
        [[mask[r, c].all() for c in patches(width, columns)] for r in patches(height, rows)]
    )


def filled_in(
    image: UInt8[np.ndarray, "channels height width"], mask: Mask
) -> UInt8[np.ndarray, "channels height width"]:
    """The image with every unknown pixel replaced by the nearest known one; grey if none is."""
    if not mask.any():
        return np.full_like(image, _WHITE)
    rows, columns = ndimage.distance_transform_edt(
        ~mask, return_distances=False, return_indices=True
    )
    return image[:, rows, columns]
