"""Batches of random rows as training reads them: codes as tensors of int64.

Ours is a split too large for memory (said to be: the limit is set to nothing), decoded to flat
files once and mapped; its batches also say which classes there are. A memory map of a plain file of
codes is read in the same rows and turned into the same tensors; the ceiling is the map's rows
alone, as they lie in the file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.reading.data import plain_file, write_codes
from benchmarks.side_by_side.contest import Contender, Contest
from stages.stores.latents import LatentSplit, open_latents

__all__ = ["mapped_split", "reading_contest"]


def reading_contest(
    folder: Path, rows: int, codes: int, batches: tuple[int, int], seed: int
) -> Contest:
    """Ours and NumPy's.

    Args:
        folder: For both data sets.
        rows: Images.
        codes: Of each.
        batches: How many are read in one run, and how many rows in each.
        seed: Of the rows chosen.
    """
    chosen = np.random.default_rng(seed).integers(0, rows, batches)
    split = mapped_split(folder, rows, codes)
    plain = plain_file(folder / "plain", rows, codes)
    amount = chosen.size
    return Contest(
        "reading random rows of codes",
        f"{rows} rows of {codes}, batches of {batches[1]}",
        "rows",
        (
            Contender("ours", "ours", _each(chosen, split.batch), amount),
            Contender(
                "numpy.memmap, to int64 tensors",
                "peer",
                _each(chosen, lambda some: torch.from_numpy(plain[some].astype(np.int64))),
                amount,
            ),
            Contender(
                "numpy.memmap, rows alone", "ceiling", _each(chosen, lambda s: plain[s]), amount
            ),
        ),
    )


def mapped_split(folder: Path, rows: int, codes: int) -> LatentSplit:
    """Written, opened and decoded to mapped files."""
    write_codes(folder / "latents", rows, codes)
    return open_latents(folder / "latents", 0, folder / "scratch").split("train")


def _each(chosen: np.ndarray, read: Callable[[np.ndarray], object]) -> Callable[[], object]:
    def run() -> None:
        for some in chosen:
            read(some)

    return run
