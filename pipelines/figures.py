"""What a finished line has to show: figures, pictures, the report."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

__all__ = ["Figure", "picture_folders", "read_figures", "report", "samples"]


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
