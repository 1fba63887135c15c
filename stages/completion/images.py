"""An image of which a part is known, from its pixels to its completions and back to pixels.

Only what is known is encoded: hidden pixels are replaced by the nearest known one before
(`stages.completion.masks`), so nothing of them reaches the prior.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from stages.completion.draw import Completed, Completer
from stages.completion.masks import Mask, filled_in, known_cells
from stages.core.errors import ParamsError
from stages.core.intensities import from_pixels
from stages.nn.completion import KnownLatents
from stages.sampling.trained import Trained

__all__ = ["Given", "completed", "require_known_cell", "row_of"]

_UNKNOWN = 128
"""Grey level shown where nothing is known."""


@dataclass(frozen=True)
class Given:
    """An image to complete."""

    name: str
    number: int
    """Names its random streams."""
    pixels: UInt8[np.ndarray, "channels height width"]
    label: int | None


def require_known_cell(mask: Mask, trained: Trained, source: str) -> None:
    """Refuse a mask under which no cell of the latents is known, though pixels are.

    Args:
        mask: True: known.
        trained: Whose latents.
        source: What the message calls the mask.

    Raises:
        ParamsError: If it settles nothing.
    """
    if not known_cells(mask, trained.second.prior.spec).any() and mask.any():
        raise ParamsError(
            f"{source} covers no whole cell of the latents, so it settles nothing; "
            "let more of the image be known (`none` asks for free samples)"
        )


@torch.inference_mode()
def completed(
    trained: Trained, completer: Completer, given: Given, mask: Mask, count: int
) -> Completed:
    """Some completions of an image.

    Args:
        trained: Autoencoder and prior.
        completer: Of that prior.
        given: What the image is.
        mask: True: known.
        count: How many.

    Raises:
        ParamsError: If the prior cannot complete.
    """
    spec, first = trained.second.prior.spec, trained.first
    visible = torch.from_numpy(filled_in(given.pixels, mask)[None]).to(trained.device)
    labels = None if given.label is None else torch.tensor([given.label], device=trained.device)
    latents = first.autoencoder.encode(from_pixels(visible), labels)
    if not isinstance(latents, torch.Tensor):
        latents = (latents.mean.double() * spec.scale).float()
    cells = torch.from_numpy(known_cells(mask, spec)[None]).to(trained.device)
    label = given.label if trained.second.prior.num_classes else None
    return completer.complete(KnownLatents(latents, cells), label, given.number, count)


def row_of(
    trained: Trained, given: Given, mask: Mask, completions: Completed
) -> UInt8[np.ndarray, "images channels height width"]:
    """The image, what is known of it, and its completions, one after another."""
    count = len(completions.latents)
    labels = None
    if given.label is not None:
        labels = torch.full((count,), given.label, device=trained.device)
    scale = trained.second.prior.spec.scale
    drawn = trained.first.pixels(completions.latents, scale, labels).cpu().numpy()
    known = np.where(mask, given.pixels, np.uint8(_UNKNOWN))
    return np.concatenate([given.pixels[None], known[None], drawn])
