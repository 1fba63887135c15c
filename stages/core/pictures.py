"""Images as one picture a person can read: grids, captioned rows, and PNG files with fixed bytes.

Small images are enlarged by a whole factor with nearest neighbours, so that a pixel stays a
square and nothing is invented; large ones are left as they are. Nothing here uses a display, a
font of the system or the clock: equal images give equal files.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["captioned_grid", "grid", "labelled_rows", "save_png"]

_SIDE = 64
"""Images are enlarged to about this many pixels a side."""
_GAP = 2
"""Pixels between images."""
_FONT_SIZE = 16
_SMALL_FONT = 11
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def grid(images: np.ndarray, columns: int) -> Image.Image:
    """Images in rows of `columns`, in reading order, with thin gaps.

    Args:
        images: uint8 (count, channels, height, width), count > 0; 1 channel is grey, 3 are RGB, of
            any other number the first is shown.
        columns: Images per row.

    Raises:
        ValueError: If `images` is not such an array, or `columns` is not positive.
    """
    _check(images)
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    tiles = _tiles(images)
    count, height, width, _ = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), _PAPER, np.uint8
    )
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + _GAP), (index % columns) * (width + _GAP)
        canvas[top : top + height, left : left + width] = tile
    return Image.fromarray(canvas)


def captioned_grid(images: np.ndarray, captions: list[str], columns: int, side: int) -> Image.Image:
    """Images in rows of `columns`, in reading order, each above its caption.

    Args:
        images: As for `grid`.
        captions: One for each; lines end with a newline.
        columns: Images per row.
        side: Images are enlarged to about so many pixels, for those that are two in one.

    Raises:
        ValueError: If `images` is not such an array, or there are not as many captions.
    """
    _check(images)
    if len(captions) != len(images):
        raise ValueError(f"every image needs a caption: {len(images)} and {len(captions)}")
    font = ImageFont.load_default(_SMALL_FONT)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [measure.multiline_textbbox((0, 0), caption, font=font) for caption in captions]
    text_width, text_height = (int(max(box[axis] for box in boxes)) + 1 for axis in (2, 3))
    tiles = _tiles(images, side)
    width = max(tiles.shape[2], text_width) + 4 * _GAP
    height = tiles.shape[1] + text_height + 4 * _GAP
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (width * min(columns, len(tiles)), height * rows), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = (index % columns) * width, (index // columns) * height
        canvas.paste(Image.fromarray(tile), (left + (width - tile.shape[1]) // 2, top))
        place = (left + width // 2, top + tile.shape[0] + _GAP)
        draw.multiline_text(place, caption, fill=_INK, font=font, anchor="ma", align="center")
    return canvas


def labelled_rows(rows: list[tuple[str, np.ndarray]]) -> Image.Image:
    """One row of images per entry, each with its caption to the left.

    Args:
        rows: (caption, images as for `grid`); rows may differ in length and image size.

    Raises:
        ValueError: If there are no rows, or a row holds no images.
    """
    if not rows:
        raise ValueError("labelled_rows needs at least one row, got none")
    strips = [grid(images, columns=len(images)) for _, images in rows]
    font = ImageFont.load_default(_FONT_SIZE)
    boxes = [font.getbbox(caption) for caption, _ in rows]
    margin = max(int(box[2]) for box in boxes) + 2 * _FONT_SIZE // 2
    heights = [max(strip.height, 2 * _FONT_SIZE) for strip in strips]
    size = (
        margin + max(strip.width for strip in strips),
        sum(heights) + _GAP * (len(strips) - 1),
    )
    canvas = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for (caption, _), strip, height in zip(rows, strips, heights, strict=True):
        middle = top + height // 2
        draw.text((_FONT_SIZE // 2, middle), caption, fill=_INK, font=font, anchor="lm")
        canvas.paste(strip, (margin, top + (height - strip.height) // 2))
        top += height + _GAP
    return canvas


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG without metadata: equal pictures give equal bytes."""
    bare = Image.fromarray(np.asarray(image))
    bare.save(path, format="PNG", optimize=False, compress_level=9)


def _check(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            "images must be uint8 (count, channels, height, width), none of them 0; "
            f"got {images.dtype} {images.shape}"
        )


def _tiles(images: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Enlarged RGB tiles, uint8 (count, height, width, 3)."""
    factor = max(1, round(side / max(images.shape[2:])))
    channels = images if images.shape[1] == 3 else images[:, :1].repeat(3, axis=1)
    return channels.transpose(0, 2, 3, 1).repeat(factor, axis=1).repeat(factor, axis=2)
