"""A small network that moves the numbers of one token, told the time and a hidden state.

    x <- W x                        x <- x + gate * W2 silu(W1 modulated(x))
    modulated(x) = (1 + scale) * LayerNorm(x) + shift
    shift, scale, gate = W silu(hidden's condition + embedded time)        of every block

The residual MLP of MAR (Li et al. 2024, arXiv:2406.11838, section 3.2), adaptive norms as in DiT
(Peebles & Xie 2022, arXiv:2212.09748): what gates and the last layer write starts at zero, so an
untrained network gives zeros.

Differs: norms without gains of their own; times are numbers in [0, 1], embedded by sines of at most
sixteen periods over it. The usual hundred periods would make a field that solvers and integrals
over time follow badly.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["TokenMLP", "guided"]

_FREQUENCIES = 32
_SLOWEST, _FASTEST = 0.5 * math.pi, 32 * math.pi
"""Radians over the whole of time."""

Condition = Float[Tensor, "*rows width"]


class TokenMLP(nn.Module):
    """channels numbers, a time and a condition -> channels numbers, each row on its own.

    Args:
        channels: Numbers of a token.
        hidden_width: Size of the hidden states it is told.
        width: Of its residual stream.
        blocks: Residual blocks.
    """

    def __init__(self, channels: int, hidden_width: int, width: int, blocks: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, width)
        self.project_hidden = nn.Linear(hidden_width, width)
        self.embed_time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.project_out = _zero(nn.Linear(width, channels))
        exponents = torch.linspace(math.log(_SLOWEST), math.log(_FASTEST), _FREQUENCIES)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def condition(self, hidden: Float[Tensor, "*rows hidden_width"]) -> Condition:
        """What a hidden state tells the network, whatever the time: computed once per token."""
        return self.project_hidden(hidden)

    def forward(
        self,
        numbers: Float[Tensor, "*rows channels"],
        times: Float[Tensor, "*#rows"],
        condition: Condition,
    ) -> Float[Tensor, "*rows channels"]:
        """One pass.

        Args:
            numbers: Of the tokens, as they are at `times`.
            times: In [0, 1].
            condition: What `condition` gave.
        """
        angles = times.unsqueeze(-1) * self.frequencies
        embedded = self.embed_time(torch.cat([angles.cos(), angles.sin()], dim=-1))
        told = F.silu(condition + embedded)
        stream = self.project_in(numbers)
        for block in self.blocks:
            stream = block(stream, told)
        return self.project_out(_modulated(stream, *self.modulation(told).chunk(2, dim=-1)))


def guided(
    field: Callable[[Condition], Tensor],
    told: Condition,
    told_less: Condition | None,
    guidance: float,
) -> Tensor:
    """What a network says, led away from what it says without the class.

    Args:
        field: Its answer under a condition.
        told: Condition with the class.
        told_less: Condition without; None: not guided.
        guidance: 1 is `told` alone.
    """
    given = field(told)
    if told_less is None:
        return given
    without_class = field(told_less)
    return without_class + guidance * (given - without_class)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = _zero(nn.Linear(width, 3 * width))
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, stream: Condition, told: Condition) -> Condition:
        shift, scale, gate = self.modulation(told).chunk(3, dim=-1)
        return stream + gate * self.layers(_modulated(stream, shift, scale))


def _modulated(stream: Condition, shift: Condition, scale: Condition) -> Condition:
    return (1 + scale) * F.layer_norm(stream, stream.shape[-1:]) + shift


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
