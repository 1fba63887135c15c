"""YAML files that users choose by name: presets, comparisons of families, sweeps."""

import difflib
from pathlib import Path

from stages.core.errors import ParamsError

__all__ = ["named_file", "names_in"]


def names_in(folder: Path) -> list[str]:
    """What there is to choose from."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def named_file(folder: Path, name: str, what: str) -> Path:
    """The file of that name.

    Args:
        folder: Where such files are.
        name: Without its ending.
        what: Of what kind it is, for the message.

    Raises:
        ParamsError: If there is none of that name.
    """
    known = names_in(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there_are = ", ".join(known) or "none"
        raise ParamsError(f"{what} {name!r}: no such file; {hint}there are: {there_are}")
    return folder / f"{name}.yaml"
