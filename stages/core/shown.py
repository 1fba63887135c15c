"""What the line knows, in the words of MLflow: parameters, metrics, inputs within its limits."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param

__all__ = ["as_dataset", "as_metrics", "as_params", "flat", "safe_name"]

LONGEST_NAME = 250
LONGEST_VALUE = 6000
LONGEST_DIGEST = 36


def safe_name(name: str) -> str:
    """The name with every character MLflow refuses turned into `_`.

    Letters, digits, `_`, `-`, `.`, `/` and spaces pass; `/` groups charts.
    """
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)[:LONGEST_NAME]


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    return dict(_leaves("", nested))


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(f"{prefix}{name}.", inner)
        else:
            yield f"{prefix}{name}", inner


def as_params(nested: Mapping[str, Any]) -> "list[Param]":
    """Parameters under dotted names; words as they are, everything else as JSON."""
    from mlflow.entities import Param

    return [
        Param(safe_name(name), _text(value)[:LONGEST_VALUE]) for name, value in flat(nested).items()
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_metrics(values: Mapping[str, float], step: int, time: int) -> "list[Metric]":
    """Numbers of one step, logged at `time` (milliseconds)."""
    from mlflow.entities import Metric

    return [Metric(safe_name(name), value, time, step) for name, value in values.items()]


def as_dataset(name: str, digest: str, path: str) -> "DatasetInput":
    """An artifact as an input of a run; the whole digest is in its source, MLflow shows a part."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"tags": {"dvc.path": path, "digest": digest}})
    dataset = Dataset(name, digest[:LONGEST_DIGEST], source_type="code", source=source)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "input")])
