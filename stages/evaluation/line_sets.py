"""The four sets of images of a line that are compared: test, train, samples, reconstructions.

Reconstructions exist only once the first stage has seen the test split. They are written to the
work folder as they come, so that any number of networks can look at them afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.core.mapped_arrays import new_mapped_array
from stages.core.shapes import Pixels
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.line import Line
from stages.evaluation.observe import evenly_spaced

__all__ = ["ReconstructionWriter", "known_sets", "writing_reconstructions"]


def known_sets(line: Line, max_images: int) -> dict[str, ImageSet]:
    """The sets that are there from the start, by name: `test`, `train` and `samples`.

    Args:
        line: Whose images.
        max_images: Of test and of train, evenly spaced; 0: all.
    """
    splits = {name: line.prepared.split(name) for name in ("test", "train")}
    stored = line.latents.split("test")
    rows = {
        # As the latents have them, which hold each image once.
        "test": np.asarray(stored.index[evenly_spaced(len(stored), max_images)], dtype=np.int64),
        "train": evenly_spaced(len(splits["train"]), max_images),
    }
    shows = {"test": "test split", "train": "training split"}
    sets = {
        name: ImageSet(
            name,
            split.images,
            rows[name],
            None if split.labels is None else split.labels[rows[name]],
            shows[name],
        )
        for name, split in splits.items()
    }
    drawn = line.samples
    count = np.arange(len(drawn.images))
    return {**sets, "samples": ImageSet("samples", drawn.images, count, drawn.labels, "samples")}


class ReconstructionWriter:
    """Takes in the reconstructions of the test images, batch by batch, in their order."""

    def __init__(self, array: np.memmap, test: ImageSet) -> None:
        self._array, self._test, self._count = array, test, 0

    def add(self, pixels: Pixels) -> None:
        """The next ones."""
        self._array[self._count : self._count + len(pixels)] = pixels.numpy()
        self._count += len(pixels)

    @property
    def images(self) -> ImageSet:
        """All of them, beside the images they are of."""
        assert self._count == len(self._test), "every test image has a reconstruction"
        return ImageSet(
            "reconstructions",
            self._array,
            np.arange(self._count),
            self._test.labels,
            "reconstructions of the reference images themselves",
        )


@contextmanager
def writing_reconstructions(work: Path, test: ImageSet) -> Iterator[ReconstructionWriter]:
    """A writer of reconstructions of `test` to a file of the work folder."""
    path = work / "reconstructions.npy"
    array = new_mapped_array(path, np.uint8, (len(test), *test.shape))
    yield ReconstructionWriter(array, test)
    array.flush()
