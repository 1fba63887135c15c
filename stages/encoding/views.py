"""Views: how a training image may be changed before it is encoded, each a row of the data set.

    identity           as it is
    horizontal_flip    mirrored
    shift_UP_LEFT      moved by a sixteenth of its sides, the edge it leaves filled by reflection
    flip_shift_...     mirrored, then moved

A prior over few images soon knows them by heart, and codes cannot be augmented once they are
written. So the images are, and encoded once for every view (LlamaGen, Sun et al. 2024,
arXiv:2406.06525, section 3.1, takes ten crops). Moving by a part of a cell of the latents gives
other latents throughout, not the same ones elsewhere.

Differs: LlamaGen crops from larger photographs; here images are prepared at the size the models
take, and a crop enlarged to it would be softer than what the first stage was trained on.
"""

from collections.abc import Callable

import torch.nn.functional as F

from stages.core.shapes import Images
from stages.stores.latent_format import View

__all__ = ["VIEWS"]

_SHARE = 16


def _flip(images: Images) -> Images:
    return images.flip(-1)


def _moved(images: Images, down: int, right: int) -> Images:
    """Move images by a sixteenth of their sides, one pixel at least.

    Args:
        images: What to move.
        down: 1 or -1, for up.
        right: 1 or -1, for left.
    """
    height, width = images.shape[-2:]
    rows, columns = max(1, height // _SHARE), max(1, width // _SHARE)
    # `reflect` needs more pixels than it fills; an image of one row has none to give.
    mode = "reflect" if min(height, width) > 1 else "replicate"
    padded = F.pad(images, (columns, columns, rows, rows), mode=mode)
    top, left = rows * (1 - down), columns * (1 - right)
    return padded[..., top : top + height, left : left + width]


VIEWS: dict[View, Callable[[Images], Images]] = {
    "identity": lambda images: images,
    "horizontal_flip": _flip,
    "shift_up_left": lambda images: _moved(images, -1, -1),
    "shift_up_right": lambda images: _moved(images, -1, 1),
    "shift_down_left": lambda images: _moved(images, 1, -1),
    "shift_down_right": lambda images: _moved(images, 1, 1),
    "flip_shift_up_left": lambda images: _moved(_flip(images), -1, -1),
    "flip_shift_up_right": lambda images: _moved(_flip(images), -1, 1),
    "flip_shift_down_left": lambda images: _moved(_flip(images), 1, -1),
    "flip_shift_down_right": lambda images: _moved(_flip(images), 1, 1),
}
