"""Which run of MLflow is the record of some work, kept beside the work: who goes on finds it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.json_files import replace_json
from stages.core.store import without_credentials

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["begun_run", "read_receipt", "set_tags", "write_receipt"]


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


def begun_run(
    client: "MlflowClient",
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    known: str | None,
) -> str:
    """The id of the run to record in: the one a receipt knows, running again, or a new one.

    Args:
        client: Of the store.
        experiment_id: Where a new one is made.
        name: Of a new one.
        tags: Of a new one. The known one gets them once it is held: a store that refuses one of
            them costs that tag and not the record.
        known: What the receipt says.
    """
    if known is None:
        run = client.create_run(experiment_id, tags=dict(tags), run_name=name)
        return run.info.run_id
    client.update_run(known, status="RUNNING")
    return known


def set_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Set each by itself: of a store that refuses one those before it are there.

    Args:
        client: Of the store.
        run_id: Of the run.
        tags: Name -> value; a tag that is there is replaced.
    """
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
