"""Cross entropy of a linear layer: its definition, whoever computes it."""

import pytest
import torch
from torch import nn

from stages.nn.linear_cross_entropy import linear_cross_entropy
from tests.nn.kernels.tile_cases import as_if_compiled, by_tiles, off, with_gradients


def drawn(rows, codes):
    torch.manual_seed(0)
    layer = nn.Linear(64, codes)
    return layer, torch.randn(*rows, 64), torch.randint(codes, rows)


def by_definition(layer, hidden, targets):
    log_p = torch.log_softmax(layer(hidden).double(), dim=-1)
    return -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("rows", [(5,), (2, 7), (2, 3, 4), (0, 4)])
def test_is_minus_the_logarithm_of_the_softmax(rows):
    layer, hidden, targets = drawn(rows, 10)
    found = linear_cross_entropy(hidden, layer, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_definition(layer, hidden, targets))


@by_tiles
@pytest.mark.parametrize("codes", [96, 100])
def test_is_the_same_with_tiles_and_without(codes):
    layer, hidden, targets = drawn((4, 16), codes)

    def found():
        leaves = [hidden, *(each.detach() for each in layer.parameters())]
        back = torch.linspace(-1, 1, 64).view(4, 16)
        with torch.autocast("cpu", torch.bfloat16):
            return with_gradients(
                lambda hidden, weight, bias: torch.func.functional_call(
                    Loss(layer), {"layer.weight": weight, "layer.bias": bias}, (hidden, targets)
                ),
                leaves,
                back,
            )

    without = found()
    with as_if_compiled():
        with_tiles = found()
    for one, other in zip(with_tiles, without, strict=True):
        assert off(one, other) < 0.01
    assert torch.equal(with_tiles[0], without[0]) == (codes == 100)


class Loss(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, hidden, targets):
        return linear_cross_entropy(hidden, self.layer, targets)
