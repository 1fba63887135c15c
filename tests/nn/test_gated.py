"""Gates: the formula, and a start that keeps the scale."""

import pytest
import torch

from stages.nn.gated import BEFORE_GATE, GatedLinear


def test_it_is_its_formula():
    layer = GatedLinear(5, 3)
    torch.nn.init.normal_(layer.project.bias)
    inputs = torch.randn(4, 5)
    weight, bias = layer.project.weight, layer.project.bias
    values = inputs @ weight[:3].T + bias[:3]
    gates = 1 / (1 + torch.exp(-(inputs @ weight[3:].T + bias[3:])))
    torch.testing.assert_close(layer(inputs), values * gates)


def test_the_gain_undoes_the_root_mean_square_of_a_gate():
    gates = torch.sigmoid(torch.randn(10**6, generator=torch.Generator().manual_seed(0)))
    # The standard error of the mean square is below 0.0003.
    assert BEFORE_GATE**-2 == pytest.approx(gates.square().mean().item(), abs=0.002)


def test_mean_square_is_kept():
    torch.manual_seed(0)
    outputs = GatedLinear(300, 400)(torch.randn(200, 300))
    # 400 random rows of weights: a relative standard error of about sqrt(3 / 400) = 0.09.
    assert outputs.square().mean().item() == pytest.approx(1.0, abs=4 * 0.09)
