"""No proxy is asked for this machine's own addresses.

The pages of MLflow and Prefect listen on the loopback interface, where no proxy can reach them.
Python's own client, Prefect's (httpx) and MLflow's (requests) ask the proxy that the environment
names for every address that `no_proxy` does not hold, 127.0.0.1 included.

Importing this module adds what is missing there; every process that speaks with a server imports
it first, and the processes it starts inherit it.
"""

import os
from collections.abc import MutableMapping

__all__ = ["spare_loopback"]

ADDRESSES = ("127.0.0.1", "localhost")
NAMES = ("no_proxy", "NO_PROXY")
"""Some read the one first, some the other."""


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Add this machine's own addresses to those no proxy is asked for; without a proxy, nothing.

    Args:
        environment: Variables by name; what the user has in them stays.
    """
    # Also without a proxy here, macOS would no longer look for the system's.
    if not any(name.lower().endswith("_proxy") for name in environment.keys() - set(NAMES)):
        return
    given = {name: environment[name] for name in NAMES if environment.get(name)}
    for name in NAMES:
        spared = given.get(name) or next(iter(given.values()), "")
        there = [each.strip() for each in spared.split(",")]
        # A star is for all addresses, and only where it stands alone.
        if "*" not in there:
            missing = [address for address in ADDRESSES if address not in there]
            environment[name] = ",".join(filter(None, [spared, *missing]))


spare_loopback(os.environ)
