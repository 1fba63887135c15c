"""Finite scalar quantization: every code in reach, mixed-base digits, zero in the middle."""

import itertools
import math

import pytest
import torch

from tests.bottlenecks.examples import FEATURES, example

some_levels = pytest.mark.parametrize("levels", [[2], [3], [8, 5], [5, 4, 2], [256, 255]], ids=str)


def quantizer(levels):
    """Features, one map per entry of `levels`, are the numbers themselves."""
    bottleneck = example("fsq", levels=levels)
    bottleneck.project_in = bottleneck.project_out = torch.nn.Identity()
    return bottleneck


@some_levels
def test_codes_and_vectors_of_the_whole_alphabet_round_trip(levels):
    bottleneck = quantizer(levels)
    codes = torch.arange(bottleneck.spec.num_codes).view(-1, 1, 1)
    vectors = bottleneck.decode(codes)
    assert vectors.flatten(1).unique(dim=0).shape == (math.prod(levels), len(levels))
    # In the bound's own units a level is an integer: tanh^-1 brings it back to where it came from.
    half = torch.tensor([level // 2 for level in levels]).view(-1, 1, 1)
    reach = torch.tensor([(level - 1) * 1.001 / 2 for level in levels]).view(-1, 1, 1)
    offset = torch.tensor([0.5 - level % 2 / 2 for level in levels]).view(-1, 1, 1)
    inside = ((vectors * half + offset) / reach).double()
    numbers = torch.atanh(inside) - torch.atanh((offset / reach).double())
    assert torch.equal(bottleneck.encode(numbers.float()), codes)


@some_levels
def test_as_many_levels_are_in_reach_as_were_asked_for(levels):
    bottleneck = quantizer(levels)
    line = torch.linspace(-30, 30, 40_001)
    numbers = line.view(-1, 1, 1, 1).expand(-1, len(levels), 1, 1)
    integers = bottleneck.decode(bottleneck.encode(numbers)).flatten(1)
    for index, level in enumerate(levels):
        found = (integers[:, index] * (level // 2)).unique()
        lowest = -(level // 2)
        # The finest bounds step over a level between two points of the line.
        assert len(found) == level or (level > 250 and len(found) > 240)
        assert (found[0], found[-1]) == (lowest, lowest + level - 1)


def test_codes_count_the_digits_in_a_mixed_base():
    bottleneck = quantizer([5, 4, 2])
    for code, (third, second, first) in enumerate(itertools.product(range(2), range(4), range(5))):
        vector = bottleneck.decode(torch.tensor([[[code]]])).flatten()
        assert vector.tolist() == [(first - 2) / 2, (second - 2) / 2, third - 1.0]


@some_levels
def test_zero_is_the_middle(levels):
    bottleneck = quantizer(levels)
    zero = torch.zeros(1, len(levels), 1, 1)
    torch.testing.assert_close(bottleneck._bound(zero), zero)
    assert bottleneck.decode(bottleneck.encode(zero)).abs().max() == 0


def test_the_gradient_is_that_of_the_bound():
    bottleneck = quantizer([5, 4, 2])
    numbers = torch.randn(2, 3, 4, 5, requires_grad=True)
    cost = torch.randn(2, 3, 4, 5)
    (bottleneck(numbers).features * cost).sum().backward()
    smooth = numbers.detach().clone().requires_grad_()
    half = torch.tensor([2, 2, 1]).view(3, 1, 1)
    (bottleneck._bound(smooth) / half * cost).sum().backward()
    torch.testing.assert_close(numbers.grad, smooth.grad)


def test_nothing_is_lost_or_learned_on_the_way():
    bottleneck, features = example("fsq"), torch.randn(3, *FEATURES)
    result = bottleneck(features)
    assert result.auxiliary == 0 and result.kl is None
    assert torch.equal(result.codes, bottleneck.encode(features))
    torch.testing.assert_close(result.features, bottleneck.decode(result.codes))
    assert all(name.startswith("project_") for name in bottleneck.state_dict())


def test_even_features_use_the_levels_evenly():
    bottleneck = quantizer([8, 8])
    numbers = torch.randn(100_000, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(bottleneck.encode(numbers).flatten(), minlength=64)
    # Numbers of mean 0 and mean square 1 reach every code; the rarest pair of levels has a
    # probability of about 1 in 1000.
    assert (counts > 0).all()
