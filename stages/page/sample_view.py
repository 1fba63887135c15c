"""Samples by class: image i of a seed, as `python -m pipelines sample` draws it."""

import io

import streamlit as st

from stages.core.pictures import labelled_rows
from stages.page.gallery import show
from stages.page.opened import line_or_stop, working
from stages.sampling.draw import concatenated
from stages.serving.line import OpenedLine

__all__ = ["view"]

_MOST = 128


def view() -> None:
    """Ask for classes, seed, temperature and number, and show the images."""
    line = line_or_stop()
    st.header("Sample", anchor=False)
    names = line.class_names
    with st.form("sample"):
        chosen = st.multiselect("Classes", names, placeholder="all of them") if names else []
        left, middle, right = st.columns(3)
        count = left.number_input("Images", 1, _MOST, min(40, _MOST), 1)
        seed = middle.number_input("Seed", 0, 2**53 - 1, line.options.seed, 1)
        temperature = right.number_input(
            "Temperature", 0.05, 5.0, line.options.temperature, 0.05, help="Below 1: safer, alike."
        )
        st.form_submit_button("Draw", type="primary", icon=":material/casino:")
    labels = [names.index(name) for name in chosen]
    with working("Drawing"):
        rows = _drawn(line, labels, int(count), int(seed), float(temperature))
    show(rows)
    file = io.BytesIO()
    labelled_rows(rows).save(file, format="PNG")
    st.download_button(
        "Download as one picture",
        file.getvalue(),
        f"samples-seed-{seed}.png",
        "image/png",
        icon=":material/download:",
        on_click="ignore",
    )


def _drawn(line: OpenedLine, labels: list[int], count: int, seed: int, temperature: float) -> list:
    asked = {"classes": labels, "seed": seed, "temperature": temperature, "count": count}
    sampler = line.trained.sampler(line.options.model_copy(update=asked))
    drawn = concatenated([sampler.draw(0, count)])
    if not sampler.classes:
        return [("", drawn.images)]
    there = [label for label in sampler.classes if (drawn.labels == label).any()]
    return [(line.class_names[label], drawn.images[drawn.labels == label]) for label in there]
