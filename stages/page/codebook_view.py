"""The codebook: what each code looks like, and what it does in one place of an image."""

import numpy as np
import streamlit as st

from stages.bottlenecks.base import LatentSpec
from stages.evaluation.observe import evenly_spaced
from stages.page.choose import test_picture
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.serving.line import OpenedLine, Picture
from stages.serving.looks import code_shares, exchanged, of_one_code

__all__ = ["view"]

_COUNTED = 128
"""Test images whose codes are counted."""
_SHOWN = 64


def view() -> None:
    """Show the codes by use, and exchange one cell of an image."""
    line = line_or_stop()
    st.header("Codebook", anchor=False)
    spec = line.trained.second.prior.spec
    if not line.has_codes:
        st.info(
            f"This line has no codebook: its latents are {spec.channels} continuous numbers in "
            f"each of {spec.grid_height}x{spec.grid_width} cells. What they do is on the page "
            "*Latent walk*.",
            icon=":material/info:",
        )
        return
    left, right = st.columns(2)
    with left:
        chosen = test_picture(line, "Test image", "codebook", 0)
    if chosen is None:
        return
    grids = _grids(spec)
    with right:
        name = st.selectbox("Grid", list(grids)) if len(grids) > 1 else next(iter(grids))
    cells, rows, columns = grids[name]
    with working("Looking at the codes"):
        shares, order = _by_use(line)
        alone = of_one_code(line, chosen, cells, order)
    st.markdown(
        f"**{spec.num_codes} codes**, {(shares > 0).sum()} of them used by "
        f"{min(_COUNTED, len(line.test or []))} test images. Each picture has one code in every "
        "cell; below it the code and its share of the cells."
    )
    show([("", alone)], [[f"{code}: {shares[code]:.1%}" for code in order]], tile=56)
    st.subheader("One cell exchanged", anchor=False)
    left, right = st.columns(2)
    row = int(left.number_input("Row of the cell", 0, rows - 1, rows // 2, 1))
    column = int(right.number_input("Column of the cell", 0, columns - 1, columns // 2, 1))
    with working("Exchanging"):
        cell = cells.start + row * columns + column
        own = int(line.latents([chosen]).flatten()[cell])
        images = exchanged(line, chosen, cell, np.append(own, order))
    captions = [[f"{own}, its own", *map(str, order)]]
    show([("", images)], captions, tile=56)


def _by_use(line: OpenedLine) -> tuple[np.ndarray, np.ndarray]:
    assert line.test is not None
    numbers = evenly_spaced(len(line.test), _COUNTED)
    pictures: list[Picture] = [line.test_picture(int(number)) for number in numbers]
    shares = code_shares(line, pictures)
    return shares, np.argsort(-shares, kind="stable")[:_SHOWN]


def _grids(spec: LatentSpec) -> dict[str, tuple[slice, int, int]]:
    """Name of each grid of codes, its cells in the order of storage, its rows and columns."""
    found, start = {}, 0
    for rows, columns in spec.parts or ((spec.grid_height, spec.grid_width),):
        cells = slice(start, start + rows * columns)
        found[f"grid {len(found) + 1}: {rows}x{columns}"] = (cells, rows, columns)
        start = cells.stop
    return found
