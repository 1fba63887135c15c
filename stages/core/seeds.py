"""What a seed may be: a whole number from 0 to 2^63 - 1, which every table can hold.

Streams would take any number (`stages/core/randomness.py`); the column `seed` of a table of samples
is of 64 bits, and would refuse it when all images are drawn.
"""

import argparse
from typing import Annotated

from pydantic import Field

__all__ = ["LARGEST_SEED", "Seed", "seed_argument"]

LARGEST_SEED = 2**63 - 1

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""In a section."""


def seed_argument(text: str) -> int:
    """On a command line.

    Raises:
        argparse.ArgumentTypeError: If it is no seed.
    """
    if not text.isdecimal() or len(text) > len(str(LARGEST_SEED)) or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {LARGEST_SEED}, is {text!r}"
        )
    return int(text)
