"""The single operation equals the two it stands for; doubling doubles."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.upsampling import NearestUpsampling, upsampling


def test_nearest_is_repeating_then_convolving_borders_included():
    layer = NearestUpsampling(5, 3).double()
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    repeated = F.interpolate(maps, scale_factor=2, mode="nearest")
    torch.testing.assert_close(layer(maps), F.conv2d(repeated, layer.weight, layer.bias, padding=1))


def test_nearest_has_the_gradients_of_repeating_then_convolving():
    layer = NearestUpsampling(5, 3).double()
    maps = torch.randn(2, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    cost = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    inputs = (maps, layer.weight, layer.bias)
    one = torch.autograd.grad((layer(maps) * cost).sum(), inputs)
    repeated = F.interpolate(maps, scale_factor=2, mode="nearest")
    two = F.conv2d(repeated, layer.weight, layer.bias, padding=1)
    for ours, theirs in zip(one, torch.autograd.grad((two * cost).sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("how", ["nearest", "transposed"])
def test_doubling_keeps_the_mean_square_behind_a_silu(how):
    torch.manual_seed(0)
    maps = F.silu(torch.randn(2, 128, 10, 12))
    doubled = upsampling(how, 128, 96)(maps)
    assert doubled.shape == (2, 96, 20, 24)
    inner = doubled[:, :, 2:-2, 2:-2]
    # Variance over 96 random kernels: a relative standard error of sqrt(2 / 96) = 0.14.
    assert inner.square().mean().item() == pytest.approx(1.0, abs=4 * 0.14)
