"""A linear layer whose every output has a gate of its own.

    y = (W x + b) * sigmoid(V x + c)

The gated linear unit of Dauphin et al. 2017 (arXiv:1612.08083, Eq. 1): the gates make the layer
nonlinear while the other factor keeps a linear path for the gradient.

Differs: weights start so that the mean square of the outputs is that of the inputs.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.convolution import LINEAR, start_weights

__all__ = ["BEFORE_GATE", "GatedLinear"]

BEFORE_GATE = 1.85
"""Gain in front of a gate: one over the root mean square of sigmoid(v), v ~ N(0, 1)."""


class GatedLinear(nn.Module):
    """Values and gates in one matrix product.

    Args:
        in_width: Numbers in.
        out_width: Numbers out.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_width, 2 * out_width)
        start_weights(self.project.weight[:out_width], in_width, BEFORE_GATE)
        start_weights(self.project.weight[out_width:], in_width, LINEAR)
        nn.init.zeros_(self.project.bias)

    def forward(self, inputs: Float[Tensor, "batch in_width"]) -> Float[Tensor, "batch out_width"]:
        """Apply to every row."""
        values, gates = self.project(inputs).chunk(2, dim=1)
        return values * torch.sigmoid(gates)
