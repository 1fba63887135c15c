"""What several views ask for: an image of the test split or an uploaded one, and a class."""

import numpy as np
import streamlit as st

from stages.core.errors import DataError
from stages.serving.line import OpenedLine, Picture
from stages.serving.uploads import MOST_MEGABYTES, SUFFIXES, read_upload

__all__ = ["class_label", "picture", "test_picture"]

_TEST, _UPLOAD = "Test image", "Upload"
_NONE = "no class"


def picture(line: OpenedLine, key: str) -> Picture | None:
    """An image that the visitor chooses or sends; None as long as there is none.

    Args:
        line: Whose test images, and whose form an upload is brought into.
        key: Tells the widgets of one view from those of another.
    """
    if line.test is None:
        return _uploaded(line, key)
    source = st.segmented_control(
        "Image", [_TEST, _UPLOAD], default=_TEST, key=f"{key}-source", required=True
    )
    return test_picture(line, "Number", key, 0) if source == _TEST else _uploaded(line, key)


def test_picture(line: OpenedLine, title: str, key: str, start: int) -> Picture | None:
    """A test image by its number; None, with a message, where there are none.

    Args:
        line: Whose.
        title: Of the field.
        key: As for `picture`.
        start: Number shown first.
    """
    if line.test is None:
        st.info("The test images are not here: `data/prepared` is missing.")
        return None
    last = len(line.test) - 1
    number = st.number_input(
        f"{title} (0 to {last})", 0, last, min(start, last), 1, key=f"{key}-{title}"
    )
    return line.test_picture(int(number))


def _uploaded(line: OpenedLine, key: str) -> Picture | None:
    image = line.first.image
    sent = st.file_uploader(
        f"A picture: PNG, JPEG or WebP, at most {MOST_MEGABYTES} MB",
        type=list(SUFFIXES),
        key=f"{key}-upload",
        help=f"Its centre square is scaled to {image.width}x{image.height} pixels, "
        f"{'grey' if image.channels == 1 else 'colour'}. It stays on this machine and is not kept.",
    )
    inverted = st.toggle(
        "Swap light and dark",
        key=f"{key}-inverted",
        help="For dark ink on white paper, where the training images are light on dark.",
    )
    if sent is None:
        st.info("Choose a file to begin.", icon=":material/upload:")
        return None
    try:
        pixels = read_upload(sent.getvalue(), sent.name, image)
    except DataError as error:
        st.error(str(error), icon=":material/error:")
        return None
    if inverted:
        pixels = np.uint8(255) - pixels
    return Picture(sent.name, pixels, class_label(line, key, "Class", None))


def class_label(line: OpenedLine, key: str, title: str, start: int | None) -> int | None:
    """A class by its name, or none; nothing is asked of a line without classes.

    Args:
        line: Whose classes.
        key: As for `picture`.
        title: Of the field.
        start: Class shown first; None: none.
    """
    names = line.class_names
    if not names:
        return None
    prior, autoencoder = line.trained.second.prior, line.first.autoencoder
    needed = autoencoder.num_classes or getattr(prior, "label_dropout", 1) == 0
    choices = names if needed else [_NONE, *names]
    first = 0 if start is None else choices.index(names[start])
    chosen = st.selectbox(title, choices, first, key=f"{key}-class-{first}")
    return None if chosen == _NONE else names.index(chosen)
