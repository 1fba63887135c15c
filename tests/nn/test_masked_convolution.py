"""Masks: what a stack of masked convolutions sees, exactly; its start."""

import itertools

import pytest
import torch

from stages.nn.masked_convolution import MaskedConvolution, MaskedResidualBlock

ROWS, COLUMNS = 5, 6


def stack(groups, kernels, width=9):
    """A strict convolution, blocks behind it, and one output per group; branches not silent."""
    first, *others = kernels
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        MaskedConvolution(groups, width, first, groups=groups, strict=True, gain=1.0),
        *(MaskedResidualBlock(width, kernel, groups) for kernel in others),
        MaskedConvolution(width, groups, 1, groups=groups, strict=False, gain=1.0),
    ).double()
    for parameter in network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network


def is_seen(output, source, groups_before, reach):
    """Whether an output at (group, row, column) may depend on a source, by the stated rule."""
    up, right = output[1] - source[1], source[2] - output[2]
    if up == 0 and right == 0:
        return source[0] < output[0] and groups_before
    if up == 0:
        return -reach <= right < 0
    return 0 < up <= reach and -reach <= right <= up


@pytest.mark.parametrize(
    ("groups", "kernels", "reach"),
    [(1, (3,), 1), (1, (3, 3, 1), 2), (3, (3, 3, 3), 3), (2, (1, 1), 0), (3, (3, 1), 1)],
)
def test_a_stack_sees_the_past_within_reach_and_nothing_else(groups, kernels, reach):
    network = stack(groups, kernels)
    maps = torch.randn(1, groups, ROWS, COLUMNS, dtype=torch.float64, requires_grad=True)
    outputs = network(maps)
    places = list(itertools.product(range(groups), range(ROWS), range(COLUMNS)))
    for output in places:
        (gradient,) = torch.autograd.grad(outputs[(0, *output)], maps, retain_graph=True)
        seen = [place for place in places if gradient[(0, *place)] != 0]
        assert seen == [place for place in places if is_seen(output, place, groups > 1, reach)]


@pytest.mark.parametrize("strict", [True, False])
def test_mean_square_is_kept(strict):
    torch.manual_seed(0)
    layer = MaskedConvolution(48, 300, 3, groups=3, strict=strict, gain=1.0)
    maps = layer(torch.randn(2, 48, 12, 14))
    assert maps.shape == (2, 300, 12, 14)
    # 300 random kernels: a relative standard error of sqrt(2 / 300) = 0.08; borders see zeros.
    assert maps[:, :, 1:, 1:-1].square().mean().item() == pytest.approx(1.0, abs=4 * 0.08)


def test_a_block_is_the_identity_before_training():
    maps = torch.randn(2, 8, 3, 5)
    assert torch.equal(MaskedResidualBlock(8, 3, groups=3)(maps), maps)
