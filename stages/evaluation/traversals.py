"""What each latent dimension does: one is moved, all others stay, and the decoder shows it.

A dimension is one number of the latent grid. Those that carry most are shown, most first: by their
KL in nats, or, of points, by their variance. Each is moved through

    m + t s,    t evenly from -2 to 2,    m, s: its mean and standard deviation over the images

where s^2 = Var(mean) + E(variance) is that of draws of the posterior, about 1 where the prior is
N(0, 1). The other dimensions keep the posterior mean of the starting image.

After Higgins et al. 2017, Figure 2; ordered by KL as in Burgess et al. 2018, Figure 2.
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.core.pictures import grid, labelled_rows, save_png
from stages.core.shapes import Labels
from stages.evaluation.observe import evenly_spaced
from stages.nn.distributions import LatentNumbers

__all__ = ["DIMENSIONS", "draw_traversals", "traversed", "variances"]

DIMENSIONS = 10
"""Dimensions shown at most."""
STARTS = 3
"""Images each traversal starts from, one per row."""
REACH = 2.0
"""Standard deviations to either side."""
STEPS = 7
"""Values of a dimension: with the image itself, as wide as a phone shows well."""
_MARGIN = 6
"""White pixels below the rows of a dimension."""

Grid = Float[Tensor, "channels grid_height grid_width"]


@torch.no_grad()
def draw_traversals(
    folder: Path,
    first_stage: FirstStage,
    means: LatentNumbers,
    log_variances: LatentNumbers | None,
    scale: float,
    labels: Labels | None,
    device: torch.device,
    *,
    kl: Grid | None,
    dimensions: int = DIMENSIONS,
) -> str:
    """Draw `traversals.png`.

    Args:
        folder: Where to.
        first_stage: The decoder.
        means: Of the posteriors of some images, as stored; some of them, evenly spaced, are the
            starting images. On the CPU, as everything given.
        log_variances: The same images'; None where latents are points.
        scale: Stored = scale * own units.
        labels: Their classes, for an autoencoder that looks at them.
        device: Where the decoder is.
        kl: Of each latent number, in nats, as its posterior's family has it; None where latents
            are points, and then their variance decides.
        dimensions: How many are shown at most.

    Returns:
        What the picture shows.
    """
    told = variances(means, scale) if kl is None else kl
    order = told.flatten().argsort(descending=True, stable=True)[:dimensions]
    rows = torch.from_numpy(evenly_spaced(len(means), STARTS))
    starts = means[rows]
    classes = None if labels is None else labels[rows].to(device)
    plain = first_stage.pixels(starts.to(device), scale, classes).cpu().numpy()
    repeated = None if classes is None else classes.repeat_interleave(STEPS)
    unit = "variance" if kl is None else "nats"
    blocks = []
    for dimension in order.tolist():
        values = _values(means, log_variances, dimension)
        moved = traversed(starts, dimension, values).flatten(0, 1)
        pixels = first_stage.pixels(moved.to(device), scale, repeated).cpu().numpy()
        images = pixels.reshape(len(starts), STEPS, *plain.shape[1:])
        name = _name(dimension, tuple(means.shape[1:]))
        caption = f"{name}  {told.flatten()[dimension].item():.2f} {unit}"
        blocks.append((caption, _block(np.concatenate([plain[:, None], images], axis=1))))
    save_png(labelled_rows(blocks), folder / "traversals.png")
    return _caption(len(blocks), told.numel(), unit)


def variances(points: LatentNumbers, scale: float) -> Grid:
    """Variance of each latent number in the autoencoder's own units.

    Args:
        points: As stored.
        scale: Stored = scale * own units.
    """
    return (points.double() / scale).var(dim=0, correction=0)


def traversed(
    starts: LatentNumbers, dimension: int, values: Float[Tensor, " values"]
) -> Float[Tensor, "starts values channels grid_height grid_width"]:
    """Each start once for every value of one latent number; nothing else changes.

    Args:
        starts: Latents of the starting images.
        dimension: Place of the number in (channels, grid_height, grid_width), last axis fastest.
        values: What it is set to.
    """
    moved = starts.flatten(1)[:, None].repeat(1, len(values), 1)
    moved[:, :, dimension] = values.to(moved.dtype)
    return moved.unflatten(2, starts.shape[1:])


def _values(
    means: LatentNumbers, log_variances: LatentNumbers | None, dimension: int
) -> Float[Tensor, " values"]:
    numbers = means.flatten(1)[:, dimension].double()
    variance = numbers.var(correction=0)
    if log_variances is not None:
        variance = variance + log_variances.flatten(1)[:, dimension].double().exp().mean()
    steps = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
    return numbers.mean() + variance.sqrt() * steps


def _name(dimension: int, shape: tuple[int, ...]) -> str:
    if math.prod(shape[1:]) == 1:
        return f"z{dimension}"
    channel, row, column = np.unravel_index(dimension, shape)
    return f"z{channel} ({row}, {column})"


def _block(images: UInt8[np.ndarray, "starts columns channels height width"]) -> np.ndarray:
    """The rows of a dimension as one large image with a white margin, for `labelled_rows`."""
    picture = np.asarray(grid(images.reshape(-1, *images.shape[2:]), images.shape[1]))
    padded = np.pad(picture, ((0, _MARGIN), (0, 0), (0, 0)), constant_values=255)
    return padded.transpose(2, 0, 1)[None]


def _caption(shown: int, total: int, unit: str) -> str:
    what = "KL in nats" if unit == "nats" else "variance"
    return (
        f"Latent traversals: the {shown} of {total} latent dimensions of the largest {what}, "
        "largest first, each from the same starting images, one a row. First column: the image "
        f"rebuilt. Then this dimension alone goes from {REACH:g} standard deviations below its "
        f"mean over these images to {REACH:g} above, in {STEPS} even steps; all others stay."
    )
