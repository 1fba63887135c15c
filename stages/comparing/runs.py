"""A judged run as it lies on the disk: its figures, and what else stands beside them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import ArtifactError
from stages.metrics.figure import Figure, read_figures

__all__ = ["Judged", "open_run"]


@dataclass(frozen=True)
class Judged:
    """One run under comparison."""

    name: str
    folder: Path
    """Where its pictures are looked for."""
    figures: dict[str, Figure]
    params: dict[str, Any]
    """Section -> values; empty where the file is missing."""


def open_run(text: str) -> Judged:
    """Open `[NAME=]PATH`.

    Args:
        text: A folder data/metrics or a figures.json, with a name for it if that is wanted.

    Raises:
        ArtifactError: If there are no figures.
    """
    name, separator, place = text.partition("=")
    path = Path(place if separator else text)
    folder = path if path.is_dir() else path.parent
    params = folder / "params.json"
    return Judged(
        name=name if separator else text,
        folder=folder,
        figures=read_figures(path),
        params=_read_params(params) if params.is_file() else {},
    )


def _read_params(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: must hold sections; got {type(values).__name__}")
    return values
