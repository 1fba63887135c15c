"""Images on the page: rows of enlarged pixels that wrap on a phone and suit both colour modes."""

import base64
import html
from collections.abc import Sequence

import numpy as np
import streamlit as st
from jaxtyping import UInt8

from stages.serving.tables import png_of

__all__ = ["show"]

_STYLE = """
<style>
.line-row { margin: 0 0 0.9rem; }
.line-row > h4 { font-size: 0.95rem; font-weight: 600; margin: 0; padding: 0 0 0.3rem; }
.line-tiles { display: flex; flex-wrap: wrap; gap: 6px; }
.line-tiles figure { margin: 0; width: var(--tile); }
.line-tiles img { width: var(--tile); height: auto; display: block; image-rendering: pixelated;
  border: 1px solid rgba(128, 128, 128, 0.35); border-radius: 4px; background: #808080; }
.line-tiles figcaption { font-size: 0.72rem; line-height: 1.25; opacity: 0.8; padding-top: 2px;
  text-align: center; overflow-wrap: anywhere; }
</style>
"""


def show(
    rows: Sequence[tuple[str, UInt8[np.ndarray, "count channels height width"]]],
    captions: Sequence[Sequence[str]] | None = None,
    *,
    tile: int = 72,
) -> None:
    """Show rows of images, each under its heading.

    Args:
        rows: Heading and images; an empty heading is left out.
        captions: Below the images of each row; None: none. They are also read out by screen
            readers, as are heading and place where there are none.
        tile: Width of an image in CSS pixels.
    """
    parts = [_STYLE]
    for index, (heading, images) in enumerate(rows):
        below = None if captions is None else captions[index]
        title = f"<h4>{html.escape(heading)}</h4>" if heading else ""
        figures = "".join(
            _figure(image, heading, place, below) for place, image in enumerate(images)
        )
        tiles = f'<div class="line-tiles" style="--tile: {tile}px">{figures}</div>'
        parts.append(f'<div class="line-row">{title}{tiles}</div>')
    st.html("".join(parts))


def _figure(
    image: UInt8[np.ndarray, "channels height width"],
    heading: str,
    place: int,
    below: Sequence[str] | None,
) -> str:
    shown = image if len(image) in (1, 3) else image[:1]
    source = base64.b64encode(png_of(shown)).decode("ascii")
    words = f"{heading} {place + 1}".strip() if below is None else f"{heading} {below[place]}"
    caption = "" if below is None else f"<figcaption>{html.escape(below[place])}</figcaption>"
    alternative = html.escape(words.strip(), quote=True)
    picture = f'<img alt="{alternative}" src="data:image/png;base64,{source}">'
    return f"<figure>{picture}{caption}</figure>"
