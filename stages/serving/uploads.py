"""A picture that somebody sends: of one of three formats, of bearable size, made into what we need.

The header is read first, so a small file that promises a thousand million pixels is refused before
a pixel is decoded.
"""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from stages.core.errors import DataError
from stages.core.shapes import ImageShape
from stages.files.image_files import Form, NotAnImage, read_image

__all__ = ["MOST_MEGABYTES", "MOST_PIXELS", "SUFFIXES", "read_upload"]

MOST_MEGABYTES = 5
MOST_PIXELS = 25_000_000
SUFFIXES = ("png", "jpg", "jpeg", "webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_WHITE = (255, 255, 255)


def read_upload(
    content: bytes, name: str, image: ImageShape
) -> UInt8[np.ndarray, "channels height width"]:
    """The picture as the line's images are: its centre square, resized.

    Args:
        content: Its bytes.
        name: Its name, which must fit the content.
        image: Shape of the line's images.

    Raises:
        DataError: If it is too large, of another format, damaged or mis-named, or if the line's
            images are no squares.
    """
    if image.height != image.width:
        raise DataError(
            f"pictures are cut to squares, but the line makes {image.height}x{image.width} images; "
            "choose a test image"
        )
    if len(content) > MOST_MEGABYTES * 2**20:
        raise _refused(name, f"it has {len(content) / 2**20:.1f} MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as header:
                pixels = header.width * header.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _refused(name, "it promises far more pixels") from None
    except UnidentifiedImageError:
        raise _refused(name, "it is none of these") from None
    # Whatever a damaged header makes Pillow trip over.
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError) as error:
        raise _refused(name, f"it is damaged: {error}") from None
    if pixels > MOST_PIXELS:
        raise _refused(name, f"it has {pixels / 1e6:.0f} million")
    try:
        return read_image(content, name, Form(image.height, image.channels, "bicubic", _WHITE))
    except NotAnImage as error:
        raise _refused(name, f"it is {error}") from None


def _refused(name: str, why: str) -> DataError:
    return DataError(
        f"{name}: must be one PNG, JPEG or WebP picture of at most {MOST_MEGABYTES} MB and "
        f"{MOST_PIXELS // 10**6} million pixels; {why}"
    )
