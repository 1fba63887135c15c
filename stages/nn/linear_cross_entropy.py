"""Cross entropy of a linear layer: what priors over codes are trained and judged by."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.nn.kernels.tile_cross_entropy import can_compare_with_tiles, tile_cross_entropy

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    hidden: Float[Tensor, "*rows width"], layer: nn.Linear, targets: Int[Tensor, "*rows"]
) -> Float[Tensor, "*rows"]:
    """-log softmax(layer(hidden)) at the target, in nats for every row, from logits in float32.

    Args:
        hidden: What the layer reads.
        layer: To logits, with a bias.
        targets: Codes: places among the logits.
    """
    rows, codes = hidden.flatten(0, -2), targets.flatten()
    if can_compare_with_tiles(rows, layer.weight):
        losses = tile_cross_entropy(rows, layer.weight, layer.bias, codes)
    else:
        losses = F.cross_entropy(layer(rows).float(), codes, reduction="none")
    return losses.view(targets.shape)
