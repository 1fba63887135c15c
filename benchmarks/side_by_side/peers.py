"""Peers that may not be installed: a row that says so, instead of a program that stops."""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from benchmarks.side_by_side.contest import Contender
from stages.files.torchvision_import import import_torchvision

__all__ = ["PEERS", "peer", "versions"]

PEERS = ("vector-quantize-pytorch", "pythae", "diffusers", "transformers", "x-transformers")


def peer(
    name: str, package: str, make: Callable[[], Callable[[], object]], amount: float
) -> Contender:
    """A contender from a package, or the row that says that it is missing.

    Args:
        name: In the table.
        package: Its distribution.
        make: Builds it, importing the package; called only if that is installed.
        amount: Work of one run.
    """
    if package not in versions([package]):
        missing = f"{package} is not installed: `pip install '.[bench]'`"
        return Contender(name, "peer", None, amount, missing)
    # Some import torchvision by themselves; see there why it must be imported first.
    import_torchvision()
    return Contender(name, "peer", make(), amount)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those distributions that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
