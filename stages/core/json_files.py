"""Small files of state, which a kill in the middle of writing must not tear."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["replace_json"]


def replace_json(path: Path, value: Mapping[Any, Any]) -> None:
    """Write a small file whole or not at all; plain JSON values."""
    building = path.with_name(f"{path.name}.{os.getpid()}")
    building.write_text(json.dumps(value))
    building.replace(path)
