"""Right angles as labels: a task that any set of images carries in itself.

Turn an image by 0, 90, 180 or 270 degrees and ask which it was: RotNet (Gidaris et al. 2018,
arXiv:1803.07728). Images that are not square are cut to their central square first: otherwise the
shape itself would tell.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Images, Labels

__all__ = ["NUM_ROTATIONS", "rotate"]

NUM_ROTATIONS = 4


def rotate(images: Images, turns: Labels) -> Float[Tensor, "batch channels side side"]:
    """Turn the central square of each image by its number of right angles, anticlockwise."""
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    turned = torch.empty_like(square)
    for turn in range(NUM_ROTATIONS):
        chosen = turns == turn
        turned[chosen] = torch.rot90(square[chosen], turn, dims=(2, 3))
    return turned
