"""Pickles that hold arrays, numbers and words, read without running what a pickle can ask for.

A pickle is a program: it may call anything that can be imported. Publishers of old data sets have
left us such files (CIFAR-10). What they need of it is an array put together from its bytes; every
other name is refused before anything is called.
"""

import io
import pickle
from typing import Any

from stages.core.errors import DataError

__all__ = ["read_array_pickle"]

# numpy.core is what numpy 1 and Python 2 called it.
NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle stands for."""
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_array_pickle(content: bytes, source: str) -> Any:
    """Read a pickle of arrays, numbers, words, lists and dicts.

    Args:
        content: The pickle; strings of Python 2 are read as Latin-1.
        source: What to call it in messages.

    Raises:
        DataError: If it asks for anything else, or is none.
    """
    try:
        return _Arrays(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DataError(f"{source}: must be a pickle of arrays and nothing else: {error}") from None
