"""A walk along one latent dimension: it moves, all others stay."""

import streamlit as st

from stages.page.choose import test_picture
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.serving.line import OpenedLine
from stages.serving.looks import moved

__all__ = ["view"]

_STEPS = 9
_SHOWN = 64


def view() -> None:
    """Ask for a start and a dimension, and show what it does."""
    line = line_or_stop()
    st.header("Latent walk", anchor=False)
    if line.has_codes:
        st.info(
            "This line stores codes, which have no dimension to walk along. What single codes do "
            "is on the page *Codebook*.",
            icon=":material/info:",
        )
        return
    left, right = st.columns(2)
    with left:
        start = test_picture(line, "Start from test image", "walk", 0)
    if start is None:
        return
    with working("Measuring the dimensions"):
        order = line.dimensions.carried.flatten().argsort(descending=True, stable=True)
    with right:
        dimension = st.selectbox(
            "Dimension, by what it carries",
            order[:_SHOWN].tolist(),
            format_func=lambda number: _name(line, number),
        )
    reach = st.slider("Reach, in standard deviations", 0.5, 5.0, 2.5, 0.5)
    with working("Walking"):
        offsets, images = moved(line, start, int(dimension), float(reach), _STEPS)
    show([("", images)], [[f"{offset:+.1f}" for offset in offsets]], tile=80)
    st.caption(
        "Numbers are standard deviations from the dimension's mean over test images; all other "
        "dimensions keep what the starting image has."
    )


def _name(line: OpenedLine, number: int) -> str:
    carried = line.dimensions.carried
    channel, row, column = (int(each) for each in _place(number, tuple(carried.shape)))
    where = "" if carried.shape[1] * carried.shape[2] == 1 else f", cell ({row}, {column})"
    value = carried.flatten()[number].item()
    return f"z{channel}{where}: {value:.2f} {line.dimensions.unit}"


def _place(number: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
    _, rows, columns = shape
    return number // (rows * columns), number // columns % rows, number % columns
