"""Orders in which the tokens of an image are predicted, random at first and raster in the end.

    image i of a batch: a random permutation with probability r(t), raster order otherwise
    r(t) = 1 before step a,    (b - t) / (b - a) from a to b,    0 from b on

Any order of the chain rule is a factorisation of the same distribution, and predicting a token from
every possible set of others teaches to look in all directions; what is used in the end is raster
order, with its exact likelihood and its cache (RAR, Yu et al. 2024, arXiv:2411.00776, section 3.2;
there a and b are half and three quarters of the training).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stages.nn.positions import Order
from stages.nn.schedules import Step

__all__ = ["draw_orders", "random_share"]


def random_share(
    step: Step | None, random_until: int, raster_from: int
) -> Float[Tensor, ""] | float:
    """r(t); None: as after the last step, 0.

    Args:
        step: Optimiser steps done.
        random_until: a, in steps.
        raster_from: b, in steps, above a.
    """
    if step is None:
        return 0.0
    return ((raster_from - step) / (raster_from - random_until)).clamp(0, 1)


def draw_orders(
    count: int, tokens: int, share: Float[Tensor, ""] | float, device: torch.device
) -> Order:
    """An order for each of `count` images, by torch's global generator.

    Args:
        count: Images.
        tokens: Of each.
        share: Probability of a random order.
        device: Where the images are.
    """
    shuffled = torch.rand(count, tokens, device=device).argsort(dim=1)
    is_random = torch.rand(count, 1, device=device) < share
    return torch.where(is_random, shuffled, torch.arange(tokens, device=device))
