"""Small files that a line's run in MLflow has among its artifacts."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import ArtifactError
from stages.core.store import reason

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["recorded_text"]


def recorded_text(client: "MlflowClient", run_id: str, name: str) -> str:
    """The text of one.

    Args:
        client: The store.
        run_id: The run.
        name: The file's.

    Raises:
        ArtifactError: If the run has no such file, or it cannot be fetched.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run_id, name, folder)
            return Path(path).read_text(encoding="utf-8")
        except Exception as error:  # MLflow raises what its many transports raise
            raise ArtifactError(
                f"run {run_id} must have {name} among its artifacts: {reason(error)}"
            ) from None
