"""What is drawn is kept at once: an interrupted run goes on after its last whole piece.

A piece is a file of the work folder with some images in a row, moved into place when it is whole.
Drawing is a function of the index, so a run in two halves leaves the same bytes as one in a go.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.core.progress import progress
from stages.core.stage import Run
from stages.sampling.draw import GROUP, Drawn, Sampler

__all__ = ["draw_pieces", "read_pieces"]


def _ranges(count: int, batch_size: int) -> list[tuple[int, int]]:
    size = -(-batch_size // GROUP) * GROUP
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _path(work: Path, start: int) -> Path:
    return work / f"images-{start:09d}.npz"


def draw_pieces(sampler: Sampler, run: Run) -> None:
    """Draw every piece that the work folder does not hold yet.

    Raises:
        Interrupted: If the stage was asked to stop; what was drawn is kept.
        ParamsError: If the prior cannot do what the settings ask for.
    """
    options = sampler.options
    ranges = _ranges(options.count, options.batch_size)
    missing = [piece for piece in ranges if not _path(run.work, piece[0]).exists()]
    there = options.count - sum(stop - start for start, stop in missing)
    with progress(options.count, initial=there, unit="images", label=run.stage) as bar:
        for start, stop in missing:
            run.raise_if_stopped()
            drawn = sampler.draw(start, stop)
            path = _path(run.work, start)
            building = path.with_name(f".{path.name}")
            with building.open("wb") as file:
                np.savez(file, **vars(drawn))
                file.flush()
                os.fsync(file.fileno())
            building.replace(path)
            bar.advance(stop - start)


def read_pieces(count: int, batch_size: int, work: Path) -> Iterator[tuple[int, Drawn]]:
    """The pieces in order, one in memory at a time, each with the index of its first image."""
    for start, _ in _ranges(count, batch_size):
        with np.load(_path(work, start), allow_pickle=False) as arrays:
            yield start, Drawn(**arrays)
