"""What a finished line has to show: figures, pictures, the report."""

import csv
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

__all__ = ["Figure", "picture_folders", "read_figures", "report", "samples", "stage_figures"]


class Figure(BaseModel):
    """One number that says how good a run is, as the evaluate stage wrote it."""

    name: str
    value: float
    unit: str
    direction: Literal["lower", "higher", "none"]
    """Which way is better."""
    n: int
    """Number of images it rests on."""
    interval: tuple[float, float] | None = None
    """Confidence interval; None where there is none."""

    @property
    def better(self) -> str:
        """The direction in a table's words."""
        return "" if self.direction == "none" else self.direction


def read_figures(workspace: Path) -> list[Figure]:
    """The figures of a workspace, in the order of the file; none if there is no file."""
    path = workspace / "data/metrics/figures.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Figure.model_validate({"name": name, **entry}) for name, entry in found.items()]


def samples(workspace: Path) -> Path | None:
    """The picture of the samples."""
    path = workspace / "data/samples/samples.png"
    return path if path.is_file() else None


def report(workspace: Path) -> Path | None:
    """The report with everything in one file."""
    path = workspace / "data/metrics/report.html"
    return path if path.is_file() else None


def picture_folders(workspace: Path) -> list[Path]:
    """Folders among the outputs that hold pictures."""
    return sorted({path.parent for path in (workspace / "data").rglob("*.png")})


def stage_figures(workspace: Path, outputs: list[str]) -> dict[str, float]:
    """What a stage says of itself: its `metrics.json`, or of a training the row of the kept step.

    Args:
        workspace: Folder of dvc.yaml.
        outputs: Of the stage.
    """
    found: dict[str, float] = {}
    for folder in (workspace / output for output in outputs):
        if (folder / "metrics.json").is_file():
            written = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            found |= {name: float(v) for name, v in written.items() if isinstance(v, int | float)}
        if (folder / "history.csv").is_file():
            found |= _kept_row(folder)
    return found


def _kept_row(folder: Path) -> dict[str, float]:
    """Last values until the step whose weights were kept."""
    manifest = folder / "manifest.json"
    about = json.loads(manifest.read_text(encoding="utf-8"))["about"] if manifest.is_file() else {}
    last = about.get("best_step", float("inf"))
    found: dict[str, float] = {}
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if float(row["step"]) <= last:
                found |= {name: float(value) for name, value in row.items() if value}
    return found
