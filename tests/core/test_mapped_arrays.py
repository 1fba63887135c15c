"""New mapped arrays: zeros in a file of their own, and a full disk is told, not run into."""

import errno

import numpy as np
import pytest

from stages.core.mapped_arrays import new_mapped_array
from tests.faults.place import mounted


@pytest.mark.parametrize("shape", [(3, 2, 5), (0, 4), ()])
def test_what_is_written_is_in_the_file(tmp_path, shape):
    path = tmp_path / "images.npy"
    path.write_bytes(b"what was there")
    array = new_mapped_array(path, np.uint8, shape)
    assert not array.any()
    array[...] = 7
    array.flush()
    found = np.load(path)
    assert found.dtype == np.uint8 and found.shape == shape and (found == 7).all()


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64k", "none"):
        new_mapped_array(disk / "small.npy", np.uint8, (30_000,))
        told = None
        try:
            new_mapped_array(disk / "large.npy", np.uint8, (60_000,))
        except OSError as error:
            # Not the error itself: its traceback holds the map, and that the disk.
            told = error.errno, error.filename
    assert told == (errno.ENOSPC, str(disk / "large.npy"))
