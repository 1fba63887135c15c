"""Latents of which some cells are given, and what becomes of the others."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from stages.core.shapes import Nats

__all__ = ["Completion", "KnownLatents", "completion_of_independent_cells"]


@dataclass(frozen=True)
class KnownLatents:
    """Cells of some images that are given."""

    latents: Tensor
    """As the prior's; where the mask is False they are not looked at."""
    mask: Bool[Tensor, "batch grid_height grid_width"]
    """True: given."""


@dataclass(frozen=True)
class Completion:
    """Latents whose given cells are as they were given."""

    latents: Tensor
    log_weight: Nats
    """log of p(all cells) over the probability with which the others were drawn, but for a
    constant, where these were drawn from the model itself: importance weights."""
    exact: bool
    """Whether the weights of every completion are equal: these are then draws of p(the other cells
    given the known ones), no more to be weighed."""


def completion_of_independent_cells(drawn: Tensor, known: KnownLatents) -> Completion:
    """What `complete` is where cells tell nothing of each other: exact whatever the mask."""
    mask = known.mask if drawn.dim() == 3 else known.mask.unsqueeze(1)
    latents = torch.where(mask, known.latents, drawn)
    return Completion(latents, torch.zeros(len(drawn), device=drawn.device), exact=True)
