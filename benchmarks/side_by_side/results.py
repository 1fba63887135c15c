"""What a benchmark leaves: a table to compute with, one to read, and what was run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

__all__ = ["write_table"]


def write_table(folder: Path, table: pd.DataFrame, text: str, run: Mapping[str, object]) -> None:
    """Write table.csv, table.md and run.json.

    Args:
        folder: Made if missing; what it has of these is replaced.
        table: To compute with; a number that is written as text keeps its digits.
        text: The same to read.
        run: What was run, where and when; how busy the machine is now is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False, lineterminator="\n")
    (folder / "table.md").write_text(text, encoding="utf-8")
    busy = {"others_running_at_the_end": round(os.getloadavg()[0], 1)}
    (folder / "run.json").write_text(json.dumps({**run, **busy}, indent=2) + "\n", encoding="utf-8")
