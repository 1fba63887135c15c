"""How a figure was taken: everything another one must share before the two may be compared.

A resizing filter or a rounding can move a Frechet distance by more than two models differ (Parmar
et al. 2022, arXiv:2104.11222), and so can the number of images. So a protocol is a record
with named fields and not a dictionary that anybody fills: it travels with its figure into
figures.json, into MLflow and into the report. The number of images itself stands on the figure.
"""

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stages.core.errors import ArtifactError

__all__ = ["Protocol", "SamplerRecord"]

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class SamplerRecord:
    """What the samples were drawn with."""

    __pydantic_config__ = _STRICT

    count: int
    seed: int
    classes: tuple[int, ...]
    """Classes asked for, in turn; empty: all of them, or none known."""
    temperature: float
    guidance: float
    pixels: str
    """What was shown of p(x given z): its mean, or a draw."""
    settings: dict[str, Any]
    """The rest of the section `sampling`."""

    @classmethod
    def of(cls, section: dict[str, Any]) -> "SamplerRecord":
        """The record of a section `sampling` as the samples carry it."""
        rest = dict(section)
        classes = tuple(rest.pop("classes"))
        named = [one.name for one in fields(cls) if one.name not in ("classes", "settings")]
        return cls(classes=classes, **{name: rest.pop(name) for name in named}, settings=rest)


@dataclass(frozen=True)
class Protocol:
    """How a figure was taken. Frozen: `also` makes another one."""

    __pydantic_config__ = _STRICT

    images: str
    """What was measured: `test split`, `samples`, `training split`, `reconstructions of ...`."""
    reference_split: str
    """The real images it was held against, or taken over."""
    reference_n: int
    """How many of them; where not all, evenly spaced."""
    reference_sha256: str
    """Of the file that holds the images of that split."""
    resize: str
    """Filter and sizes; `none` where images stay as they are."""
    antialias: bool | None
    """Whether the filter widens when it shrinks; None where nothing is resized."""
    rounding: str
    """From intensities to 8-bit pixels."""
    label_balance: str | dict[str, int]
    """Of what was measured: images of each class, `equal`, or `no classes`."""
    extractor: str | None = None
    """Network whose features were used; None where there was none."""
    extractor_sha256: str | None = None
    """Of its weights, or of the artifact that holds them."""
    sampler: SamplerRecord | None = None
    """How samples were drawn; None where none are looked at."""
    seed: int | None = None
    """Of draws the measurement itself makes."""
    parts: dict[str, str] = field(default_factory=dict)
    """Digests of the artifacts that were judged, by type."""
    details: dict[str, Any] = field(default_factory=dict)
    """What a single metric is set to: bins, subsets, draws, how its interval was made. Plain JSON
    values; two figures with other details are not compared."""
    found: dict[str, Any] = field(default_factory=dict)
    """What came out beside the value: a standard error, counts. Plain JSON values; never a reason
    not to compare."""

    def __post_init__(self) -> None:
        assert _is_plain(self.details), f"details must be plain JSON values: {self.details}"
        assert _is_plain(self.found), f"found must be plain JSON values: {self.found}"

    def also(self, **changes: Any) -> "Protocol":
        """The same with other fields by name; what is no field is added to the details.

        Args:
            **changes: Values of fields, which replace (`found` too), or details, which add.
        """
        own = {one.name for one in fields(self)}
        named = {name: value for name, value in changes.items() if name in own}
        details = {name: value for name, value in changes.items() if name not in own}
        base = named.pop("details", self.details)
        return replace(self, **named, details={**base, **details})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every field there."""
        values: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return values

    @classmethod
    def from_json(cls, values: Any) -> "Protocol":
        """What `to_json` wrote, from parsed JSON.

        Raises:
            ArtifactError: If a field is missing, unknown or of another type: a file of another
                version, or none of ours.
        """
        try:
            # Through JSON: strict there still reads a list as a tuple.
            return _ADAPTER.validate_json(json.dumps(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "(all)"
            raise ArtifactError(
                f"protocol: {where}: {first['msg']}; figures of another version are not read, "
                "evaluate that line again (`dvc repro evaluate`)"
            ) from None


_ADAPTER = TypeAdapter(Protocol)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(held) for name, held in value.items())
    if isinstance(value, list):
        return all(_is_plain(held) for held in value)
    return value is None or type(value) in (str, bool, int, float)
