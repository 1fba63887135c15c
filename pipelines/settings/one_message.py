"""A user's mistake is told in one message, in Prefect's logs too.

Prefect logs every exception of a flow with its traceback. That of a `LatentlineError` speaks of
our code and says nothing to the person who has to mend a parameter; its message says everything.
"""

import logging

from stages.core.errors import LatentlineError

__all__ = ["tell_mistakes_in_one_message"]


def tell_mistakes_in_one_message() -> None:
    """From now on the logs of flow and task runs hold no traceback of a user's mistake."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        # Adding a filter that is there already does nothing.
        logging.getLogger(name).addFilter(_one_message)


def _one_message(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, LatentlineError):
        record.msg, record.args, record.exc_info = str(error), (), None
    return True
