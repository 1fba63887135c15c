"""What dvc.lock says of stages whose bytes are nowhere, taken out of it.

A stage that dvc.lock knows with its present inputs is restored by the outputs named there or, where
the cache lacks them, run: DVC does not ask the run cache, though the same stage may have run since
with outputs of its own (data/runs names the MLflow run). A fresh clone has such a lock. Without
the entry DVC asks the run cache.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

__all__ = ["keep_cached", "keep_entries"]


def keep_entries(lock: Path, wanted: Callable[[str, Mapping[str, Any]], bool]) -> None:
    """Take entries out of a dvc.lock; a file of which all may stay is left as it is.

    Args:
        lock: The file; without one there is nothing to do.
        wanted: Told a stage's name and entry, says whether it stays.
    """
    if not lock.is_file():
        return
    yaml = YAML()
    content = yaml.load(lock.read_text(encoding="utf-8"))
    stages = content["stages"]
    others = [name for name, entry in stages.items() if not wanted(name, entry)]
    for name in others:
        del stages[name]
    if others:
        with lock.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)


def keep_cached(lock: Path, cache: Path) -> None:
    """Take out the stages of which the cache lacks an output.

    Args:
        lock: The dvc.lock.
        cache: Folder of DVC's cache.
    """

    def is_cached(_: str, entry: Mapping[str, Any]) -> bool:
        hashes = [out["md5"] for out in entry.get("outs", ())]
        return all((cache / "files" / "md5" / md5[:2] / md5[2:]).exists() for md5 in hashes)

    keep_entries(lock, is_cached)
