"""What the page says of a rebuilt image is the line's own figure, in its unit."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("streamlit")

import torch
from streamlit.testing.v1 import AppTest

import stages.page.rebuild_view as rebuild_view
from stages.metrics.base import Observation
from stages.metrics.reconstruction import Reconstruction
from tests.metrics.examples import PROTOCOL


def _script() -> None:
    from stages.page.rebuild_view import view

    view()


def test_the_error_is_the_mse_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    image, again = random.integers(0, 256, (2, 1, 5, 7), dtype=np.uint8)
    monkeypatch.setattr(rebuild_view, "line_or_stop", lambda: None)
    monkeypatch.setattr(rebuild_view, "picture", lambda *_: SimpleNamespace(pixels=image))
    monkeypatch.setattr(rebuild_view, "rebuilt", lambda *_: again[None])
    app = AppTest.from_function(_script).run(timeout=120)
    assert not app.exception
    shown = {metric.label: metric for metric in app.metric}
    of_line = Reconstruction()
    nothing = torch.zeros(1)
    of_line.update(
        Observation(torch.tensor(image[None]), torch.tensor(again[None]), nothing, nothing)
    )
    figures = {figure.name: figure.value for figure in of_line.figures(PROTOCOL)}
    assert shown["Mean squared error"].value == f"{figures['mse']:.4f}"
    assert shown["PSNR"].value == f"{figures['psnr']:.1f} dB"
    assert "[0, 1]" in shown["Mean squared error"].help
