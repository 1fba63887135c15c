"""What a store refuses is left out of a record, with one warning; it fails nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from stages.core.store import reason

__all__ = ["RecordGuard"]


@final
class RecordGuard:
    """Guards the calls of one record.

    Args:
        what: Whose record, for the warning.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._warned = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within, an exception ends the block and nothing else."""
        try:
            yield
        except Exception as error:  # MLflow raises what its many transports raise
            if not self._warned:
                message = f"tracking: the record of {self._what} is incomplete: {reason(error)}"
                print(message, file=sys.stderr)
            self._warned = True
