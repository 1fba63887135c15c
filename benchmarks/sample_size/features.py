"""Features of a convolution network nobody trained: its weights are one stream of normal numbers.

    images -> 5x5 convolution, 16 maps -> ReLU -> mean of 2x2 -> 3x3 convolution, dim maps -> ReLU
           -> mean over the image

They need no file and are the same everywhere, and tell blur, noise, and one kind of image from
another. As a scale of quality they mean nothing; here only their statistics are used.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8

__all__ = ["random_features"]

_MAPS, _BATCH = 16, 500


def random_features(
    images: UInt8[np.ndarray, "images 1 height width"], dim: int, seed: int
) -> Float32[np.ndarray, "images dim"]:
    """Features of 8-bit images, taken to [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(_MAPS, 1, 5, 5, generator=generator) * (2 / 25) ** 0.5
    second = torch.randn(dim, _MAPS, 3, 3, generator=generator) * (2 / (9 * _MAPS)) ** 0.5
    found = []
    for part in torch.from_numpy(np.array(images)).split(_BATCH):
        maps = F.conv2d(part.float() / 127.5 - 1, first, padding=2).relu()
        maps = F.conv2d(F.avg_pool2d(maps, 2), second, padding=1).relu()
        found.append(maps.mean(dim=(2, 3)))
    return torch.cat(found).numpy()
