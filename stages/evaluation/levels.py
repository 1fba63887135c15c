"""What each level of a hierarchy adds, shown by drawing that level anew and leaving the others.

A level that changes the whole object holds its kind, one that changes a collar holds collars, and
one that changes nothing has collapsed. Latents below the level keep their whitened coordinates,
which say how they depart from what they find above them (stages/autoencoders/hierarchical_vae.py).
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.core.pictures import labelled_rows, save_png
from stages.core.randomness import torch_stream

__all__ = ["Levelled", "draw_levels"]


@runtime_checkable
class Levelled(Protocol):
    """What the picture asks of an autoencoder; only those with levels have it."""

    kl_groups: dict[str, int]

    def resample_level(self, latents: Tensor, level: int, generator: torch.Generator) -> Tensor:
        """Latents in own units with one level drawn anew from the prior."""
        ...


def draw_levels(
    folder: Path, first_stage: FirstStage, latents: Tensor, scale: float, seed: int
) -> dict[str, str]:
    """Write `levels.png`, where the autoencoder has levels.

    Args:
        folder: Where to write.
        first_stage: The trained autoencoder.
        latents: As stored, (images, channels, grid_height, grid_width), on its device: one column
            each. Few: every level is a row.
        scale: `LatentSpec.scale` of the stored latents.
        seed: Of the draws; a level's draws depend on it and on the level alone.

    Returns:
        Name of the file -> what it shows; empty for an autoencoder without levels.
    """
    autoencoder = first_stage.autoencoder
    if not isinstance(autoencoder, Levelled):
        return {}
    rows = [("all kept", _pixels(first_stage, latents, scale))]
    for level, name in enumerate(autoencoder.kl_groups):
        stream = torch_stream(seed, "levels", level, device=latents.device)
        changed = autoencoder.resample_level(latents / scale, level, stream) * scale
        rows.append((name.removeprefix("level_"), _pixels(first_stage, changed, scale)))
    save_png(labelled_rows(rows), folder / "levels.png")
    return {
        "levels.png": (
            "Test images rebuilt, and below them the same with one level of latents drawn anew: "
            "what changes is what that level holds. Coarse grids first."
        )
    }


def _pixels(first_stage: FirstStage, latents: Tensor, scale: float) -> np.ndarray:
    return first_stage.pixels(latents, scale).cpu().numpy()
