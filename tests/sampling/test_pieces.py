"""Pieces of any size, left by jobs of any count, make the same samples."""

import itertools
import threading

import numpy as np
import pytest

from stages.core.errors import Interrupted
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.sampling import pieces
from stages.sampling.draw import GROUP, Drawn, Sampler, concatenated
from stages.sampling.pieces import draw_pieces, read_pieces
from tests.sampling.test_draw import options


class Counting(Sampler):
    """Draws images that are their own number, and remembers which were asked for."""

    def __init__(self, count, batch_size):
        self.options = options(guidance=1.0, count=count, batch_size=batch_size)
        self.asked = []

    def draw(self, start, stop):
        self.asked.append((start, stop))
        numbers = np.arange(start, stop)
        images = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 1, 2, 3))
        return Drawn(
            images.astype(np.uint8),
            numbers[:, None, None],
            numbers % 3,
            -numbers.astype(float),
            0 * numbers,
            np.full(len(numbers), np.nan, np.float32),
        )


@pytest.fixture
def run(tmp_path):
    return Run("sample", tmp_path, {}, NullTracker(), threading.Event())


def everything(count, run):
    parts = list(read_pieces(count, run.kept))
    assert [start for start, _ in parts] == list(range(0, count, pieces._READ_AT_ONCE))
    return concatenated([part for _, part in parts])


def test_a_larger_job_goes_on_from_what_is_there(run):
    drawn = []
    for count, batch_size in ((100, 1), (70, 500), (1500, 200), (1500, 64), (5000, 3000)):
        sampler = Counting(count, batch_size)
        draw_pieces(sampler, run)
        drawn += sampler.asked
        found = everything(count, run)
        np.testing.assert_array_equal(found.latents.ravel(), np.arange(count))
        np.testing.assert_array_equal(found.labels, np.arange(count) % 3)
    # Nothing twice, whole groups only, and no more than was asked for.
    held = sorted(drawn)
    assert held[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(held))
    assert held[-1][1] == -(-5000 // GROUP) * GROUP
    assert all(start % GROUP == 0 and stop % GROUP == 0 for start, stop in held)


def test_a_gap_is_filled_and_no_more(run):
    draw_pieces(Counting(6 * GROUP, 2 * GROUP), run)
    [middle] = [path for path in run.kept.iterdir() if f"-{2 * GROUP:09d}-" in path.name]
    middle.unlink()
    # What a killed process was writing is no piece.
    (run.kept / f".images-{2 * GROUP:09d}-{4 * GROUP:09d}.npz").write_bytes(b"half")
    sampler = Counting(6 * GROUP, 5 * GROUP)
    draw_pieces(sampler, run)
    assert sampler.asked == [(2 * GROUP, 4 * GROUP)]
    np.testing.assert_array_equal(everything(6 * GROUP, run).latents.ravel(), np.arange(6 * GROUP))


def test_one_batch_in_memory_at_a_time(run, monkeypatch):
    monkeypatch.setattr(pieces, "_READ_AT_ONCE", 100)
    draw_pieces(Counting(1000, 3 * GROUP), run)
    sizes = [len(part.labels) for _, part in read_pieces(1000, run.kept)]
    assert sizes == [100] * 10


def test_a_stop_keeps_what_is_drawn(run):
    class Stopping(Counting):
        def draw(self, start, stop):
            run.stop.set()
            return super().draw(start, stop)

    with pytest.raises(Interrupted):
        draw_pieces(Stopping(3 * GROUP, GROUP), run)
    run.stop.clear()
    sampler = Counting(3 * GROUP, GROUP)
    draw_pieces(sampler, run)
    assert sampler.asked == [(GROUP, 2 * GROUP), (2 * GROUP, 3 * GROUP)]


def test_a_damaged_piece_is_drawn_again(run, capsys):
    draw_pieces(Counting(3 * GROUP, GROUP), run)
    first, second, third = sorted(run.kept.iterdir())
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    third.write_bytes(third.read_bytes()[:100])
    sampler = Counting(3 * GROUP, GROUP)
    draw_pieces(sampler, run)
    assert sampler.asked == [(0, GROUP), (2 * GROUP, 3 * GROUP)]
    said = capsys.readouterr().err
    assert f"{first}: damaged piece" in said and f"{third}: damaged piece" in said
    assert second.exists()
