"""How a program that a person starts by hand ends: a mistake is one message, never a traceback."""

import sys
from collections.abc import Callable

from stages.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, LatentlineError, explained

__all__ = ["exit_status"]


def exit_status(work: Callable[[], object]) -> int:
    """Do the work and say how it ended.

    Args:
        work: What it returns is dropped.

    Returns:
        0 done; 1 a user's mistake, told in one message; 75 interrupted by Ctrl-C.
    """
    try:
        work()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except LatentlineError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as error:
        message = explained(error)
        if message is None and not isinstance(error, OSError):
            raise
        print(message or error, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0
