"""Reconstructions: an image through the autoencoder and back."""

import numpy as np
import streamlit as st

from stages.page.choose import picture
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.serving.looks import rebuilt

__all__ = ["view"]


def view() -> None:
    """Ask for an image and show it beside what is rebuilt of it."""
    line = line_or_stop()
    st.header("Reconstruct", anchor=False)
    chosen = picture(line, "rebuild")
    if chosen is None:
        return
    with working("Rebuilding"):
        again = rebuilt(line, chosen)[0]
    error = chosen.pixels.astype(float) - again.astype(float)
    # Of intensities in [0, 1], as the figure `mse` of the line.
    mse = float(np.mean((error / 255.0) ** 2))
    psnr = "without loss" if mse == 0 else f"{-10 * np.log10(mse):.1f} dB"
    images = np.stack([chosen.pixels, again, np.abs(error).astype(np.uint8)])
    show([("", images)], [["original", "rebuilt", "difference"]], tile=110)
    left, right = st.columns(2)
    left.metric("PSNR", psnr)
    right.metric("Mean squared error", f"{mse:.4f}", help="Of intensities in [0, 1].")
