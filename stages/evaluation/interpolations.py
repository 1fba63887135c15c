"""What lies between two images: latents on the straight line from one to the other, decoded.

    z(t) = (1 - t) a + t b,    t evenly from 0 to 1

with a, b the latents of two test images: posterior means, or points. A decoder that knows only the
places where images lie shows fog between them; one that fills the space shows images all the way.
(Straight lines pass through smaller norms than draws of a high-dimensional Gaussian have; posterior
means do too, so nothing is bent here.)
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.core.pictures import labelled_rows, save_png
from stages.core.shapes import Labels
from stages.evaluation.observe import evenly_spaced
from stages.nn.distributions import LatentNumbers

__all__ = ["between", "draw_interpolations"]

PAIRS = 5
"""Rows of the picture."""
STEPS = 8
"""Images of a row, both ends among them."""


@torch.no_grad()
def draw_interpolations(
    folder: Path,
    first_stage: FirstStage,
    means: LatentNumbers,
    scale: float,
    labels: Labels | None,
    device: torch.device,
) -> dict[str, str]:
    """Draw `interpolations.png`.

    Args:
        folder: Where to.
        first_stage: The decoder.
        means: Latents of some images, as stored, on the CPU; pairs are taken evenly spaced.
        scale: Stored = scale * own units.
        labels: Their classes. An autoencoder that looks at them is shown the first image's on the
            first half of the way and the second image's on the rest.
        device: Where the decoder is.

    Returns:
        Name of the file -> what it shows; empty for fewer than two images.
    """
    rows = evenly_spaced(len(means), 2 * PAIRS)
    if len(rows) < 2:
        return {}
    starts, ends = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    blocks = []
    for start, end in zip(starts, ends, strict=False):
        line = between(means[start], means[end])
        classes = None
        if labels is not None:
            halves = np.where(np.arange(STEPS) < STEPS / 2, start, end)
            classes = labels[torch.from_numpy(halves)].to(device)
        pixels = first_stage.pixels(line.to(device), scale, classes).cpu().numpy()
        blocks.append((f"{start} - {end}", pixels))
    save_png(labelled_rows(blocks), folder / "interpolations.png")
    return {
        "interpolations.png": (
            f"Interpolations: from one test image (left) to another (right), {STEPS} even steps on "
            "the straight line between their latents, decoded. Numbers are rows of the test split "
            "as the latents hold it."
        )
    }


def between(
    start: Float[Tensor, "channels grid_height grid_width"],
    end: Float[Tensor, "channels grid_height grid_width"],
) -> Float[Tensor, "steps channels grid_height grid_width"]:
    """Latents on the straight line, both ends exactly among them."""
    share = torch.linspace(0, 1, STEPS, dtype=start.dtype)[:, None, None, None]
    return (1 - share) * start + share * end
