"""Convolutions that see only what comes before, in raster order and colour by colour.

The maps are in groups, one per channel of the image, as equal as can be. A kernel is masked so that
an output of group g at pixel i is a function of

    all groups at the pixels of its window above i, and left of i in its row,
    at i itself of the groups before g; unless `strict`, of group g as well

(PixelRNN, van den Oord et al. 2016, arXiv:1601.06759, Figure 2: mask A is strict, mask B is not).
A strict convolution first and others behind it: outputs of group g at i know all channels of the
pixels before i and the channels before g of i, and nothing else.

What a stack of n such 3x3 convolutions sees: n columns to the left and, a rows up, from n columns
left to a columns right, a = 1..n. Pixels above further to the right lie in its blind spot.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stages.nn.convolution import AFTER_SILU

__all__ = ["MaskedConvolution", "MaskedResidualBlock"]


class MaskedConvolution(nn.Module):
    """A convolution of stride 1 over the past; rows and columns unchanged.

    Args:
        in_width: Maps in, at least `groups`.
        out_width: Maps out, at least `groups`.
        kernel_size: Rows and columns of the window, odd.
        groups: Channels of the image that the maps speak of.
        strict: Whether an output is kept from its own group at its own pixel.
        gain: Scale of the start, as in stages/nn/convolution.py.
    """

    mask: Bool[Tensor, "out_width in_width rows columns"]

    def __init__(
        self,
        in_width: int,
        out_width: int,
        kernel_size: int,
        *,
        groups: int,
        strict: bool,
        gain: float,
    ) -> None:
        super().__init__()
        mask = _mask(in_width, out_width, kernel_size, groups, strict)
        self.register_buffer("mask", mask, persistent=False)
        seen = mask.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
        self.weight = nn.Parameter(torch.randn(mask.shape) * mask * gain / seen.sqrt())
        self.bias = nn.Parameter(torch.zeros(out_width))

    def forward(
        self, maps: Float[Tensor, "batch in_width rows columns"]
    ) -> Float[Tensor, "batch out_width rows columns"]:
        """Outputs that know the past; beyond the border stand zeros."""
        weight = self.weight * self.mask
        return F.conv2d(maps, weight, self.bias, padding=weight.shape[-1] // 2)


class MaskedResidualBlock(nn.Module):
    """x -> x + f(x) over the past, the identity before training (stages/nn/residual.py).

    Args:
        width: Maps in and out, at least twice `groups`.
        kernel_size: Rows and columns of its first convolution, odd.
        groups: Channels of the image that the maps speak of.
    """

    def __init__(self, width: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        inner = width // 2
        self.branch = nn.Sequential(
            nn.SiLU(),
            MaskedConvolution(
                width, inner, kernel_size, groups=groups, strict=False, gain=AFTER_SILU
            ),
            nn.SiLU(),
            MaskedConvolution(inner, width, 1, groups=groups, strict=False, gain=0.0),
        )

    def forward(
        self, maps: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Add what the branch sees; shape unchanged."""
        return maps + self.branch(maps)


def _mask(
    in_width: int, out_width: int, kernel_size: int, groups: int, strict: bool
) -> Bool[Tensor, "out_width in_width rows columns"]:
    assert min(in_width, out_width) >= groups, "every group has a map"
    mask = torch.zeros(out_width, in_width, kernel_size, kernel_size, dtype=torch.bool)
    middle = kernel_size // 2
    mask[:, :, :middle] = True
    mask[:, :, middle, :middle] = True
    into = _group(out_width, groups)[:, None]
    outof = _group(in_width, groups)
    mask[:, :, middle, middle] = outof < into if strict else outof <= into
    return mask


def _group(width: int, groups: int) -> Tensor:
    """The group of each of `width` maps, ascending."""
    return torch.arange(width) * groups // width
