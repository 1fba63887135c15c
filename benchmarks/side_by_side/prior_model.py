"""The prior that speed is measured with: 10 million parameters, its sizes and its operations."""

import torch
from torch import nn

from stages.bottlenecks.base import LatentSpec
from stages.heads.categorical import CategoricalOptions
from stages.priors.transformer import TransformerOptions, TransformerPrior

__all__ = ["CODES", "PriorSize", "make_prior", "matrix_weights"]

CODES = 512
CLASSES = 10


class PriorSize:
    """Layers, width and tokens; a width of 384 in 6 layers makes 10.8 million weights.

    Args:
        layers: Blocks.
        width: Of the residual stream, a multiple of 4 `heads`.
        tokens: Of an image, in rows of 16 or, if fewer, one row.
        heads: Of attention.
    """

    def __init__(self, layers: int, width: int, tokens: int, heads: int = 6) -> None:
        self.layers, self.width, self.tokens, self.heads = layers, width, tokens, heads
        self.columns = min(tokens, 16)
        self.rows = tokens // self.columns

    @property
    def hidden(self) -> int:
        """Numbers inside a feed-forward layer, as ours chooses them: 8/3 of the width, about."""
        return -(-8 * self.width // 3 // 32) * 32


def make_prior(size: PriorSize, seed: int) -> TransformerPrior:
    """The member `transformer` with rotary places, normalised queries and keys, and classes."""
    torch.manual_seed(seed)
    options = TransformerOptions(
        kind="transformer",
        layers=size.layers,
        width=size.width,
        num_heads=size.heads,
        label_dropout=0.1,
        token_dropout=0.0,
        residual_dropout=0.0,
        feed_forward_dropout=0.0,
        attention_dropout=0.0,
        query_key_norm=True,
        positions="rotary",
        order="raster",
        random_until=0,
        raster_from=0,
    )
    head = CategoricalOptions(kind="categorical", tied=False)
    spec = LatentSpec("codes", size.rows, size.columns, CODES)
    return TransformerPrior(options, head, spec, CLASSES)


def matrix_weights(module: nn.Module) -> list[torch.Tensor]:
    """Weights of all linear layers: two operations each, for every token."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
