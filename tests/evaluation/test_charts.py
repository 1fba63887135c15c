"""Curves of a training are drawn from its history, which stays as it is."""

from pathlib import Path

import pytest
from PIL import Image

from stages.core.artifacts import Artifact, new_artifact, open_artifact
from stages.core.errors import ArtifactError
from stages.evaluation.charts import draw_curves

COLUMNS = {"loss": "training loss", "validation_loss": "validation loss"}


def trained(folder: Path, history: str) -> Artifact:
    with new_artifact(folder / "prior", "prior", {}) as building:
        (building / "history.csv").write_text(history)
    return open_artifact(folder / "prior", "prior")


def test_a_history_becomes_a_picture_and_stays_as_it_is(tmp_path: Path) -> None:
    artifact = trained(tmp_path, "step,loss\n1,2.0\n2,1.0\n")
    said = draw_curves(tmp_path / "curves.png", artifact, COLUMNS, "prior")
    assert said == "Training of the prior: training loss over steps."
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (640, 320)
    artifact.verified("history.csv")


@pytest.mark.parametrize("history", ["step,loss\n1,2.0\n", "step\n1\n2\n"])
def test_a_single_point_is_no_curve(tmp_path: Path, history: str) -> None:
    artifact = trained(tmp_path, history)
    assert draw_curves(tmp_path / "curves.png", artifact, COLUMNS, "prior") is None
    assert not (tmp_path / "curves.png").exists()


def test_a_history_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"history\.csv: cannot be read"):
        draw_curves(tmp_path / "curves.png", trained(tmp_path, ""), COLUMNS, "prior")
