"""What is drawn is kept at once: an interrupted run goes on after its last whole piece.

A piece is a file with some groups of images in a row, named by the first and the one after the
last, and moved into place when it is whole. Drawing is a function of the index, so a run in two
halves leaves the same bytes as one in a go, and one that asks for more images, or for pieces of
another size, goes on from those that are there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.core.kept_arrays import read_arrays, write_arrays
from stages.core.progress import progress
from stages.core.stage import Run
from stages.sampling.draw import GROUP, Drawn, Sampler, concatenated

__all__ = ["draw_pieces", "read_pieces"]

_READ_AT_ONCE = 1024
"""Images in memory while the artifact is written."""


@dataclass(frozen=True)
class _Piece:
    """Images start <= i < stop, both multiples of `GROUP`."""

    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        return folder / f"images-{self.start:09d}-{self.stop:09d}.npz"


def draw_pieces(sampler: Sampler, run: Run) -> None:
    """Draw every image that no piece in `run.kept` holds yet.

    Raises:
        Interrupted: If the stage was asked to stop; what was drawn is kept.
        ParamsError: If the prior cannot do what the settings ask for.
    """
    options = sampler.options
    for piece in _pieces(run.kept):
        read_arrays(piece.path(run.kept))  # a damaged one goes, and is then among the missing
    missing = _missing(options.count, options.batch_size, _pieces(run.kept))
    there = options.count - sum(min(piece.stop, options.count) - piece.start for piece in missing)
    with progress(options.count, initial=there, unit="images", label=run.stage) as bar:
        for piece in missing:
            run.raise_if_stopped()
            drawn = sampler.draw(piece.start, piece.stop)
            write_arrays(piece.path(run.kept), vars(drawn))
            bar.advance(min(piece.stop, options.count) - piece.start)


def read_pieces(count: int, folder: Path) -> Iterator[tuple[int, Drawn]]:
    """The first `count` images in order, some at a time, each time with the first index.

    How many at a time does not depend on how they were cut into pieces: what is made of them has
    the same bytes.

    Args:
        count: Images; pieces that were drawn for more are cut.
        folder: Where `draw_pieces` left them, with none missing.
    """
    pieces = _pieces(folder)
    for start in range(0, count, _READ_AT_ONCE):
        yield start, _read(start, min(start + _READ_AT_ONCE, count), pieces, folder)


def _read(start: int, stop: int, pieces: list[_Piece], folder: Path) -> Drawn:
    parts = []
    while start < stop:
        piece = _holding(start, pieces)
        assert piece is not None, f"{folder}: no piece holds image {start}"
        rows = slice(start - piece.start, min(piece.stop, stop) - piece.start)
        with np.load(piece.path(folder), allow_pickle=False) as arrays:
            parts.append(Drawn(**{name: array[rows] for name, array in arrays.items()}))
        start = piece.stop
    return concatenated(parts)


def _pieces(folder: Path) -> list[_Piece]:
    names = (path.stem.split("-")[1:] for path in sorted(folder.glob("images-*.npz")))
    return [_Piece(int(start), int(stop)) for start, stop in names]


def _holding(index: int, pieces: list[_Piece]) -> _Piece | None:
    """Of the pieces that hold an image, the one that goes furthest."""
    holding = [piece for piece in pieces if piece.start <= index < piece.stop]
    return max(holding, key=lambda piece: piece.stop, default=None)


def _missing(count: int, batch_size: int, there: list[_Piece]) -> list[_Piece]:
    """Pieces of whole groups that fill the gaps."""
    size, end = _whole_groups(batch_size), _whole_groups(count)
    missing = []
    start = 0
    while start < count:
        piece = _holding(start, there)
        if piece is None:
            later = [other.start for other in there if other.start > start]
            piece = _Piece(start, min(start + size, end, *later))
            missing.append(piece)
        start = piece.stop
    return missing


def _whole_groups(images: int) -> int:
    return -(-images // GROUP) * GROUP
