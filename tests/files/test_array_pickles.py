"""A pickle gives arrays or nothing: what it would run is never run."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.files.array_pickles import read_array_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back(protocol: int) -> None:
    content = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "b": b"x"}
    found = read_array_pickle(pickle.dumps(content, protocol), "batch")
    np.testing.assert_array_equal(found["data"], content["data"])
    assert found["labels"] == [1, 2]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_it_would_run_is_named_and_not_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"batch: .*it asks for posix\.mkdir"):
        read_array_pickle(pickle.dumps([Evil(tmp_path / "made")]), "batch")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1])[:-2]])
def test_what_is_no_pickle(content: bytes) -> None:
    with pytest.raises(DataError, match="must be a pickle of arrays"):
        read_array_pickle(content, "batch")
