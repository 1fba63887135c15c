"""Lines in miniature for what serves them: square images, so that uploads can be cut to them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.evaluation.tiny_line as tiny
from stages.core.sections import validate
from stages.core.shapes import ImageShape
from stages.sampling.options import SamplingOptions
from stages.serving.line import OpenedLine, open_line

NAMES = ["sneaker", "bag", "<b>two & more</b>"]
SQUARE = ImageShape(channels=1, height=8, width=8)
CPU = torch.device("cpu")


def make_square_line(folder: Path, system: dict[str, Any]) -> Path:
    """Make a line with params.yaml in a folder, which is returned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "IMAGE", SQUARE)
        patch.chdir(folder)
        tiny.make_line(folder, system, NAMES)
    params = {"device": "cpu", "sampling": tiny.SAMPLING}
    (folder / "params.yaml").write_text(json.dumps(params))
    (folder / "dvc.yaml").write_text("stages: {}\n")
    return folder


def options(**changes: Any) -> SamplingOptions:
    """The section of such a line, with changes."""
    return validate(SamplingOptions, tiny.SAMPLING | changes, source="test")


def opened(folder: Path, **changes: Any) -> OpenedLine:
    """Such a line, opened."""
    return open_line(folder / "data", options(**changes), CPU)
