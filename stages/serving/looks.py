"""Looks at a trained line from inside: rebuilt images, the way between two, dimensions, codes.

* rebuilt: decode(encode(x))
* the way: decode((1 - t) a + t b), t evenly from 0 to 1, for latents a, b of two images; of codes,
  whose numbers mean nothing, the vectors they stand for are blended
* moved: one latent number from m - r s to m + r s, all others as they are
* of one code: an image whose cells are all of one code; exchanged: one cell of it only
"""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from stages.autoencoders.flat import Flat
from stages.core.errors import ParamsError
from stages.core.intensities import to_pixels
from stages.evaluation.interpolations import between
from stages.evaluation.traversals import traversed
from stages.serving.line import OpenedLine, Picture

__all__ = ["code_shares", "exchanged", "moved", "of_one_code", "rebuilt", "way"]

Images = UInt8[np.ndarray, "count channels height width"]


def rebuilt(line: OpenedLine, picture: Picture) -> Images:
    """The image as the autoencoder gives it back; one row."""
    return line.decoded(line.latents([picture]), picture.label)


@torch.inference_mode()
def way(line: OpenedLine, start: Picture, end: Picture) -> Images:
    """Images on the way, both ends rebuilt among them.

    A decoder that looks at classes is shown the first image's on the first half of the way and the
    second image's on the rest.

    Raises:
        ParamsError: If the codes of this autoencoder cannot be blended.
    """
    latents = line.latents([start, end])
    if line.has_codes:
        autoencoder = line.first.autoencoder
        if not isinstance(autoencoder, Flat):
            raise ParamsError(
                f"the codes of {line.first.params.autoencoder.kind!r} stand in several grids, "
                "which cannot be blended; look at single codes instead"
            )
        vectors = autoencoder.bottleneck.decode(latents)
        parameters = autoencoder.backbone.decoder(between(vectors[0], vectors[1]))
        return to_pixels(autoencoder.likelihood.mean(parameters)).cpu().numpy()
    steps = between(latents[0], latents[1])
    half = len(steps) // 2
    ends = (line.decoded(steps[:half], start.label), line.decoded(steps[half:], end.label))
    return np.concatenate(ends)


def moved(
    line: OpenedLine, picture: Picture, dimension: int, reach: float, steps: int
) -> tuple[Float[np.ndarray, " steps"], Images]:
    """One latent number goes through its range.

    Args:
        line: Of continuous latents.
        picture: Whose other numbers stay.
        dimension: Place in (channels, grid_height, grid_width), last axis fastest.
        reach: Standard deviations to either side of the mean.
        steps: Images.

    Returns:
        Standard deviations from the mean, and the images.
    """
    told = line.dimensions
    offsets = torch.linspace(-reach, reach, steps, dtype=torch.float64)
    mean, deviation = (each.flatten()[dimension] for each in (told.mean, told.deviation))
    start = line.latents([picture]).cpu()
    latents = traversed(start, dimension, mean + deviation * offsets)[0]
    return offsets.numpy(), line.decoded(latents, picture.label)


def code_shares(line: OpenedLine, pictures: list[Picture]) -> Float[np.ndarray, " codes"]:
    """Share of the cells of these images that each code has, in [0, 1]."""
    counts = torch.bincount(
        line.latents(pictures).flatten().cpu(), minlength=line.trained.second.prior.spec.num_codes
    )
    return (counts.double() / counts.sum()).numpy()


def of_one_code(
    line: OpenedLine, picture: Picture, cells: slice, codes: Int[np.ndarray, " count"]
) -> Images:
    """The image with all cells of a grid set to one code, for each of some codes.

    Args:
        line: Of codes.
        picture: Says what the cells of other grids hold, where there are several.
        cells: Of the grid, in the order in which codes are stored.
        codes: Which.
    """
    return _with_codes(line, picture, cells, codes)


def exchanged(
    line: OpenedLine, picture: Picture, cell: int, codes: Int[np.ndarray, " count"]
) -> Images:
    """The image with one cell set to each of some codes; arguments as for `of_one_code`."""
    return _with_codes(line, picture, slice(cell, cell + 1), codes)


def _with_codes(
    line: OpenedLine, picture: Picture, cells: slice, codes: Int[np.ndarray, " count"]
) -> Images:
    stored = line.latents([picture])
    rows: Tensor = stored.flatten(1).repeat(len(codes), 1)
    rows[:, cells] = torch.from_numpy(codes).to(rows)[:, None]
    return line.decoded(rows.view(len(codes), *stored.shape[1:]), picture.label)
