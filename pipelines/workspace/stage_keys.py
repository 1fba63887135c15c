"""Which executions of a stage are the same: known before anything runs.

    key(stage) = hash(command, names of deps, values of its params, key of each stage it reads)

In copies of one commit on one machine two stages with equal keys compute the same, so one of them
is enough. DVC hashes bytes instead and has the last word; it can do so only once they are there.
Names and values are those of dvc.yaml after `${section.key}` is filled in from params.yaml.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml

__all__ = ["described_stages", "stage_keys", "stage_outputs"]

KEY_LENGTH = 16


def described_stages(workspace: Path) -> dict[str, Any]:
    """The stages of a workspace's dvc.yaml as they stand there."""
    return dict(read_yaml(workspace / "dvc.yaml")["stages"])


def stage_keys(
    described: Mapping[str, Any], graph: Mapping[str, Sequence[str]], params: Mapping[str, Any]
) -> dict[str, str]:
    """Key of each stage.

    Args:
        described: From `described_stages`.
        graph: From `pipelines.workspace.stage_graph.stage_order`.
        params: Content of params.yaml.

    Raises:
        ParamsError: If a stage names a parameter that is not there.
    """
    keys: dict[str, str] = {}
    for stage, upstream in graph.items():
        entry = described[stage]
        parts = {
            "cmd": _filled(str(entry["cmd"]), params),
            "deps": [_filled(str(dep), params) for dep in entry.get("deps") or []],
            # An entry that is no name speaks of another file than params.yaml.
            "params": {
                str(name): _value(params, name) if isinstance(name, str) else None
                for name in entry.get("params") or []
            },
            "upstream": [keys[other] for other in upstream],
        }
        text = json.dumps([stage, parts], sort_keys=True)
        keys[stage] = hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
    return keys


def stage_outputs(described: Mapping[str, Any]) -> dict[str, list[str]]:
    """Stage -> paths of its outputs, as dvc.yaml names them."""
    return {
        stage: [out if isinstance(out, str) else next(iter(out)) for out in entry.get("outs") or []]
        for stage, entry in described.items()
    }


def _filled(text: str, params: Mapping[str, Any]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(_value(params, found[1])), text)


def _value(params: Mapping[str, Any], name: str) -> Any:
    found: Any = params
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ParamsError(f"params.yaml: {name} is missing; a stage of dvc.yaml reads it")
        found = found[part]
    return found
