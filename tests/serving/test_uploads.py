"""Uploads: three formats, bearable sizes, one message for everything else."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stages.core.errors import DataError
from stages.core.shapes import ImageShape
from stages.serving.uploads import read_upload

SQUARE = ImageShape(channels=3, height=6, width=6)


def encoded(format: str, size: tuple[int, int] = (9, 6), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(file, format=format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that promises so many pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"")
    end = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk + end


@pytest.mark.parametrize(("format", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_the_three_formats_become_squares_of_the_line(format: str, suffix: str) -> None:
    pixels = read_upload(encoded(format), f"a.{suffix}", SQUARE)
    assert pixels.shape == (3, 6, 6) and pixels.dtype == np.uint8
    assert pixels[0].min() > 240 and pixels[1:].max() < 15


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"", "a.png", "it is none of these"),
        (b"hello", "a.png", "it is none of these"),
        (encoded("GIF"), "a.gif", "it is none of these"),
        (encoded("TIFF"), "a.png", "it is none of these"),
        (encoded("PNG"), "a.jpg", "mis-named"),
        (encoded("PNG")[:50], "a.png", "damaged"),
        (encoded("PNG") + bytes(5 * 2**20), "a.png", "it has 5.0 MB"),
        (png_header(6000, 6000), "a.png", "it has 36 million"),
        (png_header(12000, 12000), "a.png", "it promises far more pixels"),
        (png_header(60000, 60000), "a.png", "it promises far more pixels"),
        (
            encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (9, 6))]),
            "a.webp",
            "a film or a stack",
        ),
    ],
)
def test_everything_else_is_refused_in_one_message(content: bytes, name: str, why: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        read_upload(content, name, SQUARE)
    said = str(refused.value)
    assert said.startswith(f"{name}: must be one PNG, JPEG or WebP picture of at most 5 MB")
    assert len(said.splitlines()) == 1


def test_a_line_of_no_squares_says_so() -> None:
    with pytest.raises(DataError, match="the line makes 8x12 images; choose a test image"):
        read_upload(encoded("PNG"), "a.png", ImageShape(1, 8, 12))
