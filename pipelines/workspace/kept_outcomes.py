"""What came of a branch, kept in its folder: a comparison that was killed asks only for the rest.

An outcome counts as long as the same is asked: parameters and whatever else decides what comes out
stand beside it.
"""

import json
from pathlib import Path
from typing import Any

from stages.core.json_files import replace_json

__all__ = ["keep", "kept"]

FILE = "outcome.json"


def kept(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The outcome in a branch's folder, if it is one of what is asked now."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    outcome: dict[str, Any] = found["outcome"]
    return outcome if found["asked"] == asked else None


def keep(folder: Path, asked: dict[str, Any], outcome: dict[str, Any]) -> None:
    """Write it, whole or not at all; plain JSON values."""
    replace_json(folder / FILE, {"asked": asked, "outcome": outcome})
