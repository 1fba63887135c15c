"""Every way in which a program ends has its status, and a mistake is one message."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.programs import exit_status

MOVED = "a file is where a folder must be, or the other way round (a.png); move it away\n"


SMALLER = (
    "memory does not suffice (Unable to allocate 7 PiB); take fewer at once (batch_size, or more "
    "pieces of a batch), or a smaller network, and run again\n"
)


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ParamsError("count must be at least 1"), 1, "count must be at least 1\n"),
        (FileNotFoundError(2, "No such file", "a.png"), 1, "[Errno 2] No such file: 'a.png'\n"),
        (IsADirectoryError(21, "Is a directory", "a.png"), 1, MOVED),
        (MemoryError("Unable to allocate 7 PiB"), 1, SMALLER),
        (torch.OutOfMemoryError("Unable to allocate 7 PiB\nmore of it"), 1, SMALLER),
        (KeyboardInterrupt(), 75, ""),
    ],
)
def test_what_ends_it_is_told_once(error, status, told, capsys):
    assert exit_status(raises(error)) == status
    assert capsys.readouterr().err == told


def test_what_is_done_ends_with_0_and_a_defect_is_not_hidden():
    assert exit_status(lambda: "what it returns is dropped") == 0
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 / 0)


def test_memory_that_torch_cannot_have_on_a_cpu_is_told(capsys):
    assert exit_status(lambda: torch.empty(10**15)) == 1
    assert "memory does not suffice" in capsys.readouterr().err
