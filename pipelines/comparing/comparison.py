"""What is compared: a file `pipelines/families/NAME.yaml`, as it stands or adapted from another.

A base preset, seconds for each of the two trainings, and members, each an overlay of sections and
single values. A file with `members_of` has the members of another, set to other data.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from pipelines.settings.named_files import named_file, names_in
from pipelines.settings.params_overlay import as_preset, overlaid, preset_path
from stages.core.errors import ParamsError
from stages.core.sections import Section, read_yaml, validate

__all__ = ["Comparison", "Member", "comparisons", "read_comparison", "require_members"]

FOLDER = Path(__file__).parents[1] / "families"


class Member(Section):
    """One line of the table."""

    about: str
    """What it is, in a few words."""
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Overlay of params.yaml, whole sections."""
    values: dict[str, Any] = Field(default_factory=dict)
    """`section.key` -> value, after the sections: a single number changed, the seed of a rerun."""
    own_prior: dict[str, Any]
    """The `prior` section that learns nothing."""
    learned: bool
    """Whether there is a learned prior to compare it with."""

    def changed(self, params: str) -> str:
        """A text of params.yaml as this member has it."""
        return overlaid(params, as_preset(self.sections), self.values)


class _Terms(Section):
    """What every file says of its members together."""

    preset: str | None
    """Preset that the members change; null: params.yaml as it stands."""
    preset_values: dict[str, Any] = Field(default_factory=dict)
    """`section.key` -> value in place of the preset's, before the members change it."""
    autoencoder_seconds: float
    prior_seconds: float


class Comparison(_Terms):
    """The content of a file that lists its members."""

    members: dict[str, Member]

    def changed(self, params: str) -> str:
        """A text of params.yaml with the preset in place: what the members change."""
        preset = preset_path(self.preset).read_text(encoding="utf-8") if self.preset else None
        return overlaid(params, preset, self.preset_values)


class Adapted(_Terms):
    """The content of a file that has the members of another, set to other data."""

    members_of: str
    """Name of the other file."""
    only: list[str] | None = None
    """Which of its members; None: all."""
    learned: bool | None = None
    """Of these members, whether there is a learned prior; None: as the other file has it."""
    values: dict[str, Any]
    """`section.key` -> value, for every member whose sections have that key."""
    members: dict[str, Member]
    """More of them, or others in place of those of the same name."""


def comparisons() -> list[str]:
    """Names of the files."""
    return names_in(FOLDER)


def read_comparison(name: str) -> Comparison:
    """Read a comparison by name.

    Raises:
        ParamsError: If there is none, or it is not one.
    """
    path = named_file(FOLDER, name, "families")
    content = read_yaml(path)
    if "members_of" not in content:
        return validate(Comparison, content, source=str(path))
    adapted = validate(Adapted, content, source=str(path))
    return Comparison(
        members=_adapted_members(adapted, str(path)),
        **adapted.model_dump(include=set(_Terms.model_fields)),
    )


def _adapted_members(adapted: Adapted, source: str) -> dict[str, Member]:
    there = read_comparison(adapted.members_of).members
    names = list(there) if adapted.only is None else adapted.only
    require_members(names, there, f"{source}: only")
    members = {name: there[name] for name in names}
    unused = set(adapted.values)
    for name, member in members.items():
        sections = {section: dict(content) for section, content in member.sections.items()}
        for path, value in adapted.values.items():
            section, _, key = path.partition(".")
            if key in sections.get(section, {}):
                sections[section][key] = value
                unused.discard(path)
        learned = member.learned if adapted.learned is None else adapted.learned
        members[name] = member.model_copy(update={"sections": sections, "learned": learned})
    if unused:
        raise ParamsError(
            f"{source}: values {min(unused)}: must be a key of some member's section; no member of "
            f"{adapted.members_of} has it"
        )
    return members | adapted.members


def require_members(names: list[str], there: dict[str, Member], source: str) -> None:
    """Check names of members against those there are.

    Raises:
        ParamsError: If one is not there; `source` says who asked.
    """
    for name in names:
        if name not in there:
            raise ParamsError(f"{source}: no member {name!r}; there are: {', '.join(there)}")
