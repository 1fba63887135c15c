"""What lies between two images."""

import numpy as np
import streamlit as st

from stages.page.choose import test_picture
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.serving.looks import way

__all__ = ["view"]


def view() -> None:
    """Ask for two test images and show the way from one to the other."""
    line = line_or_stop()
    st.header("Interpolate", anchor=False)
    left, right = st.columns(2)
    with left:
        start = test_picture(line, "From test image", "interpolate", 0)
    if start is None:
        return
    with right:
        end = test_picture(line, "To test image", "interpolate", 7)
    assert end is not None
    with working("Decoding"):
        images = way(line, start, end)
    show(
        [
            ("The two images", np.stack([start.pixels, end.pixels])),
            ("Between them, decoded", images),
        ],
        tile=80,
    )
    st.caption(
        "The codes' vectors are blended: what lies between two codes is no code, and the decoder "
        "has never seen it."
        if line.has_codes
        else "Even steps on the straight line between the two latents."
    )
