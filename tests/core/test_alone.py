"""One at a time at a place, and no lock file is left."""

import threading
import time

import pytest

from stages.core.alone import alone_at


def test_the_lock_is_gone_afterwards_whatever_happened(tmp_path):
    place = tmp_path / "new" / "prepared"
    with alone_at(place):
        assert (tmp_path / "new" / ".prepared.lock").exists()
    with pytest.raises(ZeroDivisionError), alone_at(place):
        raise ZeroDivisionError
    assert not list((tmp_path / "new").iterdir())


def test_one_that_a_killed_process_has_left_holds_nobody(tmp_path):
    (tmp_path / ".prepared.lock").touch()
    with alone_at(tmp_path / "prepared"):
        pass
    assert not list(tmp_path.iterdir())


def test_many_are_there_one_after_the_other(tmp_path, capfd):
    inside, most, entered = 0, 0, 0

    def enter():
        nonlocal inside, most, entered
        for _ in range(5):
            with alone_at(tmp_path / "prepared"):
                inside += 1
                most, entered = max(most, inside), entered + 1
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 40)
    assert "prepared: another process writes it; waiting" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
