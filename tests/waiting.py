"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 200.0) -> Any:
    """What the condition gives, once that is true.

    Raises:
        AssertionError: If it does not come true.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value
