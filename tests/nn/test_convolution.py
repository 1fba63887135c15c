"""The start keeps the scale of what passes."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.convolution import AFTER_SILU, LINEAR, convolution


def test_the_gain_behind_a_silu_undoes_its_root_mean_square():
    samples = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    # The standard error of the mean square is below 0.001.
    assert AFTER_SILU**-2 == pytest.approx(F.silu(samples).square().mean().item(), abs=0.004)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (4, 2)])
def test_mean_square_is_kept(kernel, stride):
    torch.manual_seed(0)
    layer = convolution(64, 200, kernel, gain=LINEAR, stride=stride)
    maps = layer(torch.randn(3, 64, 16, 20))
    assert maps.shape == (3, 200, 16 // stride, 20 // stride)
    # 200 random kernels: a relative standard error of sqrt(2 / 200) = 0.1; borders see zeros.
    assert maps[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(1.0, abs=0.4)


def test_over_one_cell_it_is_the_same_map():
    layer = convolution(6, 4, 1, gain=LINEAR)
    maps = torch.randn(5, 6, 1, 1)
    apart = layer(maps)
    together = layer(maps.expand(-1, -1, 2, 3))
    assert apart.shape == (5, 4, 1, 1)
    torch.testing.assert_close(together, apart.expand(-1, -1, 2, 3))
