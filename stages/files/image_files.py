"""One image file of unknown make: an array of the wanted form, or the reason why not.

In this order: recognised by content and compared with its name; refused when it is a film or
larger than Pillow thinks wise; turned upright (EXIF); laid on the background where transparent;
grey or colour; the centre square, resized with antialiasing; 8 bits.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["Filter", "Form", "NotAnImage", "has_image_suffix", "read_image"]

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
FILTERS: dict[Filter, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

Image.init()
# EPS would start Ghostscript, a program, on input nobody has looked at; the others are films and
# containers that Pillow can name but not decode.
_FORMATS = sorted(set(Image.OPEN) - {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
_FORMAT_OF_SUFFIX = {s: f for s, f in Image.registered_extensions().items() if f in _FORMATS}
# Telephones write MPO, a JPEG with a second picture behind it, under the name .jpg.
_ALSO_JPEG = "MPO"


class NotAnImage(Exception):
    """The file is no picture of the wanted kind; the text says why."""


@dataclass(frozen=True)
class Form:
    """What every image is made into."""

    size: int
    """Side of the square, in pixels."""
    channels: int
    """1: grey (ITU-R 601 luma). 3: colour."""
    filter: Filter
    background: tuple[int, ...]
    """Red, green and blue of what shines through transparency."""


def has_image_suffix(name: str) -> bool:
    """Whether a file's name promises an image that Pillow can read."""
    return PurePosixPath(name).suffix.lower() in _FORMAT_OF_SUFFIX


def read_image(content: bytes, name: str, form: Form) -> UInt8[np.ndarray, "channels size size"]:
    """Decode and convert one file.

    Args:
        content: Its bytes.
        name: Its name; the suffix must fit the content.
        form: What to make of it.

    Raises:
        NotAnImage: If it cannot be used, with the reason.
    """
    if not content:
        raise NotAnImage("empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_kind(image, PurePosixPath(name).suffix.lower())
            return _convert(image, form)
    except UnidentifiedImageError:
        raise NotAnImage("in no image format Pillow recognises") from None
    except Image.DecompressionBombError as error:
        raise NotAnImage(f"too many pixels: {error}") from None
    # Whatever a damaged file makes Pillow's decoders trip over.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        RuntimeError,
        struct.error,
        zlib.error,
    ) as error:
        raise NotAnImage(f"damaged: {error}") from None


def _check_kind(image: Image.Image, suffix: str) -> None:
    promised = _FORMAT_OF_SUFFIX.get(suffix, suffix)
    held = "JPEG" if image.format == _ALSO_JPEG else image.format
    if suffix and held != ("JPEG" if promised == _ALSO_JPEG else promised):
        raise NotAnImage(f"mis-named: holds {image.format}, but is called {suffix}")
    pixels, most = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise NotAnImage(f"too many pixels: {pixels}, at most {most} are read")
    frames = getattr(image, "n_frames", 1)
    if frames != 1 and image.format != _ALSO_JPEG:
        raise NotAnImage(f"a film or a stack of {frames} pictures, must be one")


def _convert(image: Image.Image, form: Form) -> np.ndarray:
    upright = _eight_bits(ImageOps.exif_transpose(image))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        below = Image.new("RGBA", upright.size, (*form.background, 255))
        upright = Image.alpha_composite(below, upright).convert("RGB")
    elif upright.mode not in ("L", "RGB"):
        upright = upright.convert("L" if upright.mode == "1" else "RGB")
    plain = upright.convert("L" if form.channels == 1 else "RGB")
    square = ImageOps.fit(plain, (form.size, form.size), FILTERS[form.filter])
    return np.array(square).reshape(form.size, form.size, form.channels).transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise NotAnImage(f"of mode {image.mode}, whose range of values is not known")
    return image
