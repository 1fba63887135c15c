"""What is out of date, as DVC sees it: data, code and parameters, before anything is run."""

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import LatentlineError

__all__ = ["out_of_date", "untouched"]


def out_of_date(
    workspace: Path, stages: Sequence[str], environment: Mapping[str, str]
) -> dict[str, list[str]]:
    """Ask DVC what has changed since the stages ran; changes that follow from these are not told.

    Args:
        workspace: Folder of dvc.yaml; nobody may be running in it.
        stages: Names in dvc.yaml.
        environment: From `pipelines.workspace.reproduce.stage_environment`.

    Returns:
        Stage -> its changes in a few words each; empty if all is up to date.

    Raises:
        LatentlineError: If DVC cannot say; with its words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "status", "--json", *stages],
        cwd=workspace,
        env=dict(environment),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise LatentlineError(f"dvc status failed:\n{done.stderr.strip() or done.stdout.strip()}")
    found: dict[str, list[Any]] = json.loads(done.stdout or "{}")
    return {
        stage: [word for entry in told for word in _words(entry)] for stage, told in found.items()
    }


def untouched(
    stages: Sequence[str], graph: Mapping[str, Sequence[str]], changed: Collection[str]
) -> frozenset[str]:
    """Stages that cannot change, whatever the others do: nothing before them has changed either.

    Args:
        stages: In an order that can be run; what they depend on outside of it is up to date.
        graph: Stage -> those whose outputs it reads.
        changed: Those that are out of date themselves, or are to run in any case.
    """
    moving = set(changed)
    for stage in stages:
        if moving.intersection(graph[stage]):
            moving.add(stage)
    return frozenset(stages) - moving


def _words(entry: Any) -> Iterator[str]:
    """`{"changed deps": {"params.yaml": {"seed": "modified"}}}` -> `params.yaml seed modified`."""
    if not isinstance(entry, dict):
        yield str(entry)
        return
    for what, paths in entry.items():
        output = "output " if what == "changed outs" else ""
        for path, how in paths.items() if isinstance(paths, dict) else [(what, paths)]:
            each = how.items() if isinstance(how, dict) else [("", how)]
            for key, verb in each:
                yield " ".join(filter(None, (f"{output}{path}", key, str(verb))))
