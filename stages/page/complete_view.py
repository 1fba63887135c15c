"""Completions: what is missing of an image, drawn given the rest."""

import numpy as np
import streamlit as st

from stages.completion.draw import Completer
from stages.completion.images import Given, completed, require_known_cell, row_of
from stages.completion.masks import NAMED
from stages.page.choose import class_label, picture
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.serving.line import OpenedLine, Picture

__all__ = ["view"]

_KNOWN = {
    "upper_half": "the upper half",
    "lower_half": "the lower half",
    "left_half": "the left half",
    "right_half": "the right half",
    "centre": "the centre",
    "border": "the border",
}
_COUNT = 8


def view() -> None:
    """Ask for an image and for what is known of it, and show completions."""
    line = line_or_stop()
    st.header("Complete", anchor=False)
    chosen = picture(line, "complete")
    left, middle, right = st.columns(3)
    with left:
        known = st.selectbox("Known is", list(_KNOWN), format_func=lambda name: _KNOWN[name])
    seed = middle.number_input("Seed", 0, 2**53 - 1, line.options.seed, 1)
    candidates = right.select_slider(
        "Candidates",
        [1, 4, 16, 64, 256],
        64,
        help="Of each completion one is kept, by how well it fits what is known and comes later. "
        "More are nearer to the truth and take longer. The upper half needs none.",
    )
    if chosen is None:
        return
    label = chosen.label
    if chosen.name.startswith("test image"):
        label = class_label(line, "complete", "As class", chosen.label)
    with working("Completing"):
        row, said = _completed(line, chosen, label, known, int(seed), int(candidates))
    show(
        [("The image, what is known of it", row[:2]), ("Completions", row[2:])],
        tile=96,
    )
    st.caption(said)


def _completed(
    line: OpenedLine, chosen: Picture, label: int | None, known: str, seed: int, candidates: int
) -> tuple[np.ndarray, str]:
    trained, image = line.trained, line.first.image
    mask = NAMED[known](image.height, image.width)
    require_known_cell(mask, trained, _KNOWN[known])
    completer = Completer(trained.walker(line.options), line.options.settings, candidates, seed)
    given = Given(chosen.name, 0, chosen.pixels, label)
    found = completed(trained, completer, given, mask, _COUNT)
    row = row_of(trained, given, mask, found)
    if found.exact:
        return row, "Exact draws: what is known comes first in the prior's order."
    effective = found.effective_candidates.mean()
    return row, (
        f"Approximate: of {candidates} candidates {effective:.1f} counted on average. "
        "More candidates come nearer."
    )
