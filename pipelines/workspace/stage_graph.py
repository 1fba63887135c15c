"""The order of the stages, read from dvc.yaml: who writes what another reads.

Stage b follows stage a when a path among b's `deps` is, contains, or lies in a path among a's
`outs`, `metrics` or `plots`. DVC knows the same graph, but tells it only through private modules.
"""

import difflib
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml

__all__ = ["stage_order", "stages_with_upstream"]


def stage_order(workspace: Path) -> dict[str, list[str]]:
    """Every stage of a workspace's dvc.yaml in an order that can be run.

    Args:
        workspace: Folder of dvc.yaml.

    Returns:
        Stage -> the stages whose outputs it reads; keys in topological order, among equals in the
        order of the file.

    Raises:
        ParamsError: If dvc.yaml is missing, holds templated stages, or its stages form a circle.
    """
    source = workspace / "dvc.yaml"
    described = read_yaml(source).get("stages") or {}
    for name, stage in described.items():
        if not isinstance(stage, dict) or "cmd" not in stage:
            raise ParamsError(
                f"{source}: stage {name} must have a `cmd`; `foreach` and `matrix` stages are run "
                "with `dvc repro`, not by this flow"
            )
    outputs = {name: _paths(stage, "outs", "metrics", "plots") for name, stage in described.items()}
    inputs = {name: _paths(stage, "deps") for name, stage in described.items()}
    graph = {
        name: [
            other for other in described if other != name and _meet(inputs[name], outputs[other])
        ]
        for name in described
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ParamsError(
            f"{source}: stages need each other: {' -> '.join(error.args[1])}"
        ) from None
    return {name: graph[name] for name in order}


def stages_with_upstream(graph: dict[str, list[str]], targets: Sequence[str]) -> list[str]:
    """The targets and all they depend on, in order; everything if there are no targets.

    Args:
        graph: From `stage_order`.
        targets: Names of stages.

    Raises:
        ParamsError: If a target is not a stage.
    """
    for target in targets:
        if target not in graph:
            near = difflib.get_close_matches(target, graph, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ParamsError(
                f"{target!r} is not a stage of dvc.yaml; {hint}there are: {', '.join(graph)}"
            )
    wanted = set(targets or graph)
    for name in reversed(graph):
        if name in wanted:
            wanted.update(graph[name])
    return [name for name in graph if name in wanted]


def _paths(stage: dict[str, Any], *fields: str) -> list[PurePosixPath]:
    folder = stage.get("wdir", ".")
    entries = [entry for field in fields for entry in stage.get(field) or []]
    names = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    return [PurePosixPath(normpath(f"{folder}/{name}")) for name in names]


def _meet(inputs: Iterable[PurePosixPath], outputs: Sequence[PurePosixPath]) -> bool:
    return any(
        read.is_relative_to(written) or written.is_relative_to(read)
        for read in inputs
        for written in outputs
    )
