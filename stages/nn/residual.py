"""A residual block without normalisation, stable because it starts as the identity.

    y = x + W2 silu(W1 silu(x)),    W1: 3x3, width -> width / 2;    W2: 1x1, back, zero at the start

The block of VQ-VAE (van den Oord et al. 2017, section 4.1): a 3x3 convolution into fewer maps and
a 1x1 convolution back. With W1 1x1 as well, a block mixes maps and sees no neighbours.

Differs: the last convolution starts at zero (Fixup, Zhang et al. 2019), so that depth does not
change the scale of activations and no normalisation is needed: normalising moves every activation
through memory once more, which costs more than the arithmetic it steadies. SiLU for ReLU.
"""

from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.convolution import AFTER_SILU, convolution

__all__ = ["ResidualBlock", "residual_blocks"]


class ResidualBlock(nn.Module):
    """x -> x + f(x), the identity before training.

    Args:
        width: Maps in and out, at least 2.
        kernel_size: Rows and columns of W1, odd.
    """

    def __init__(self, width: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.SiLU(),
            convolution(width, width // 2, kernel_size, gain=AFTER_SILU),
            nn.SiLU(),
            convolution(width // 2, width, 1, gain=0.0),
        )

    def forward(
        self, maps: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Add what the branch sees; shape unchanged."""
        return maps + self.branch(maps)


def residual_blocks(width: int, count: int, kernel_size: int = 3) -> list[nn.Module]:
    """`count` blocks of one width, to be unpacked into a Sequential."""
    return [ResidualBlock(width, kernel_size) for _ in range(count)]
