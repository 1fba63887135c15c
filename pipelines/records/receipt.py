"""Which run of MLflow is the record of some work, kept beside the work: who goes on finds it."""

import json
from pathlib import Path

from stages.core.json_files import replace_json
from stages.core.store import without_credentials

__all__ = ["read_receipt", "write_receipt"]


def read_receipt(path: Path, uri: str) -> dict[str, str | None]:
    """What was kept, if it speaks of this store; else nothing.

    Args:
        path: Of the receipt.
        uri: Tracking URI.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found) if found["tracking_uri"] == without_credentials(uri) else {}
    except (OSError, ValueError, KeyError):
        return {}


def write_receipt(path: Path, uri: str, **names: str | None) -> None:
    """Keep the names of a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_json(path, {"tracking_uri": without_credentials(uri), **names})
