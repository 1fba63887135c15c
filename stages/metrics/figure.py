"""A figure: a number with its unit, its direction, and how it came about; and its file.

A number without its protocol can not be compared with any other, so the two never part.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from stages.core.artifacts import write_json
from stages.core.errors import ArtifactError
from stages.metrics.protocol import Protocol

__all__ = ["Direction", "Figure", "read_figures", "write_figures"]

Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Figure:
    """One reported number."""

    name: str
    value: float
    unit: str
    direction: Direction
    """Which way is better; `none` where that depends on what is compared."""
    n: int
    """Number of images it was taken over."""
    protocol: Protocol
    """How it was taken."""
    interval: tuple[float, float] | None = None
    """Confidence interval of the value; its level and its method stand in the protocol's details
    (`interval`)."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "direction": self.direction,
            "n": self.n,
            "interval": None if self.interval is None else list(self.interval),
            "protocol": self.protocol.to_json(),
        }

    @classmethod
    def from_json(cls, values: Any) -> "Figure":
        """What `to_json` wrote, from parsed JSON.

        Raises:
            ArtifactError: If it is something else.
        """
        wanted = {"name", "value", "unit", "direction", "n", "interval", "protocol"}
        if not isinstance(values, dict) or set(values) != wanted:
            came = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ArtifactError(
                f"a figure must have exactly {', '.join(sorted(wanted))}; got {came}; evaluate "
                "that line again (`dvc repro evaluate`)"
            )
        interval = values["interval"]
        right = (
            isinstance(values["name"], str)
            and _is_number(values["value"])
            and isinstance(values["unit"], str)
            and values["direction"] in get_args(Direction)
            and type(values["n"]) is int
            and (interval is None or _is_pair(interval))
        )
        if not right:
            raise ArtifactError(f"figure {values['name']!r}: not of the types a figure has")
        return cls(
            name=values["name"],
            value=values["value"],
            unit=values["unit"],
            direction=values["direction"],
            n=values["n"],
            protocol=Protocol.from_json(values["protocol"]),
            interval=None if interval is None else (interval[0], interval[1]),
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(end) for end in value)


def write_figures(path: Path, figures: dict[str, Figure]) -> None:
    """Write figures.json: name -> figure."""
    write_json(path, {name: figure.to_json() for name, figure in figures.items()})


def read_figures(path: Path) -> dict[str, Figure]:
    """Read figures.json, or that of a folder data/metrics.

    Raises:
        ArtifactError: If there is no such file, or it holds no figures.
    """
    file = path / "figures.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{file}: no such file; name a figures.json or a folder data/metrics that holds one"
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: not readable as JSON: {error}") from None
    if not isinstance(values, dict) or not values:
        raise ArtifactError(f"{file}: must hold figures by name; got {type(values).__name__}")
    try:
        return {name: Figure.from_json(value) for name, value in values.items()}
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from None
