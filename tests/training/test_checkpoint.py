"""A checkpoint is taken whole or not at all, and a damaged one costs the steps since the last."""

import errno
from pathlib import Path

import pytest
import torch

from stages.training.checkpoint import read_checkpoint, write_checkpoint
from tests.faults.place import mounted


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for step in (1, 2):
        write_checkpoint(tmp_path, {"step": step, "weights": torch.full((1000,), float(step))})
    return tmp_path


def test_the_newest_is_read(two: Path) -> None:
    read = read_checkpoint(two)
    assert read is not None and read["step"] == 2 and read["weights"].eq(2.0).all()
    assert read_checkpoint(two / "nowhere") is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.999])
def test_a_flipped_bit_anywhere_costs_the_steps_since_the_one_before(
    two: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    read = read_checkpoint(two)
    assert read is not None and read["step"] == 1
    assert f"{path}: damaged checkpoint passed over" in capsys.readouterr().err


@pytest.mark.parametrize("numbers", [5_000, 12_000, 15_000, 40_000])
def test_a_full_disk_is_told_as_such(tmp_path: Path, numbers: int) -> None:
    """Wherever in the file the space ends; torch tells of its archive instead."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64k", "none"):
        write_checkpoint(disk, {"weights": torch.zeros(8_000)})
        with pytest.raises(OSError) as caught:
            write_checkpoint(disk, {"weights": torch.zeros(numbers)})
            write_checkpoint(disk, {"weights": torch.zeros(numbers)})
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("length", [0, 10, 31, 32, 500])
def test_a_torn_one_too(two: Path, length: int) -> None:
    path = two / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:length])
    read = read_checkpoint(two)
    assert read is not None and read["step"] == 1
