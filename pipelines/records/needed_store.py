"""The MLflow store for what is nothing without it: pages of it, a champion, a line made again.

A stage and a flow go on without their records (`pipelines.records.guard`); here the user is told
what is wrong with the store.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from stages.core.errors import LatentlineError
from stages.core.store import opened_store, reason, without_credentials

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

__all__ = ["needed_store"]


@contextmanager
def needed_store(uri: str) -> Iterator["MlflowClient"]:
    """`opened_store`, of a store that has answered.

    Args:
        uri: Tracking URI.

    Raises:
        LatentlineError: If it cannot be opened, or does not answer.
    """
    with ExitStack() as stack:
        try:
            client = stack.enter_context(opened_store(uri))
            # Of a server nothing is known before it is asked.
            client.search_experiments(max_results=1)
        except Exception as error:  # MLflow raises what its many transports raise
            raise LatentlineError(
                f"{without_credentials(uri)} must be a store of MLflow that can be opened: "
                f"{reason(error)}; mend it, or name another with MLFLOW_TRACKING_URI"
            ) from None
        yield client
