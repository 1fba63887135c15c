"""What differs between two figures of one name: what forbids comparing them, what is compared.

Two numbers say something about two models only when all else is equal: as many images, the same
reference, the same features, the same resizing and rounding, the same settings of the metric. That
another model was judged, or that samples were drawn another way, is what one wants to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from stages.metrics.figure import Figure
from stages.metrics.protocol import Protocol

__all__ = ["Difference", "Differences", "best", "differences", "flat"]

COMPARED = {"parts", "sampler", "seed"}
"""Fields of a protocol that may differ: they tell what is under comparison."""
IGNORED = {"found"}
"""What came out is no part of how it was measured."""


@dataclass(frozen=True)
class Difference:
    """One thing, as either figure has it."""

    name: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.name}: {_short(self.first)} | {_short(self.second)}"


@dataclass(frozen=True)
class Differences:
    """All of them."""

    unlike: tuple[Difference, ...]
    """With any of these the two figures are not to be compared."""
    compared: tuple[Difference, ...]
    """What the comparison is about."""


def differences(first: Figure, second: Figure) -> Differences:
    """What differs between two figures and their protocols.

    Args:
        first: Of one run.
        second: Of another; by rights of the same name.
    """
    one, other = _settings(first), _settings(second)
    found = [
        Difference(name, one.get(name), other.get(name))
        for name in [*one, *(name for name in other if name not in one)]
        if one.get(name) != other.get(name)
    ]
    compared = tuple(d for d in found if d.name.partition(".")[0] in COMPARED)
    return Differences(tuple(d for d in found if d not in compared), compared)


def best(figures: Sequence[Figure]) -> int | None:
    """Which of some figures of one name is the best beyond doubt.

    Returns:
        Its place; None where they are not comparable, where no direction is better, or where its
        interval touches that of another or one of them has none.
    """
    ends = [figure.interval for figure in figures if figure.interval is not None]
    if len(figures) < 2 or len(ends) < len(figures) or figures[0].direction == "none":
        return None
    if any(differences(figures[0], other).unlike for other in figures[1:]):
        return None
    # Turned so that lower is better.
    sign = 1 if figures[0].direction == "lower" else -1
    turned = [sorted((sign * low, sign * high)) for low, high in ends]
    place = min(range(len(turned)), key=lambda i: turned[i][1])
    others = [low for i, (low, _) in enumerate(turned) if i != place]
    return place if turned[place][1] < min(others) else None


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted names."""
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    return {
        name: value
        for key, held in values.items()
        for name, value in flat(held, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _settings(figure: Figure) -> dict[str, Any]:
    protocol = figure.protocol.to_json()
    kept = {one.name: protocol[one.name] for one in fields(Protocol) if one.name not in IGNORED}
    details = kept.pop("details")
    return flat(
        {"name": figure.name, "unit": figure.unit, "n": figure.n} | kept | {"details": details}
    )


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    # A digest is known by its beginning.
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:12] if is_digest else text
