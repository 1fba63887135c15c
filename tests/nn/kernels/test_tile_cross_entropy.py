"""Cross entropy by tile registers: values and gradients of the definition."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.kernels.tile_cross_entropy import (
    _cross_entropy,
    _cross_entropy_gradient,
    can_compare_with_tiles,
    tile_cross_entropy,
)
from tests.nn.kernels.tile_cases import (
    as_if_compiled,
    by_tiles,
    dense,
    drawn,
    error,
    is_the_same_every_time,
    off,
    with_gradients,
)

SIZES = [
    # rows, width, codes
    (32, 32, 32),
    (96, 64, 96),
    # More rows than go through together.
    (1120, 32, 64),
    # The gradient of the weight is narrower than it is wide, and as wide.
    (64, 160, 32),
    (64, 96, 96),
    # More than a core keeps of the weight: in pieces.
    (64, 416, 2048),
]


def drawn_inputs(rows, width, codes, scale=1.0):
    torch.manual_seed(rows + codes)
    weight = drawn(codes, width, dtype=torch.float32, scale=scale * width**-0.5)
    inputs = [drawn(rows, width), weight, 0.5 * torch.randn(codes)]
    return inputs, torch.randint(codes, (rows,)), torch.randn(rows)


def by_definition(targets):
    def loss(hidden, weight, bias):
        logits = F.linear(hidden, weight, bias).to(bias.dtype)
        return F.cross_entropy(logits, targets, reduction="none")

    return loss


def by_kernel(targets):
    return lambda *inputs: tile_cross_entropy(*inputs, targets)


def assert_as_near_as_autocast(inputs, targets, back):
    exact = [each.double() for each in inputs]
    expected = with_gradients(by_definition(targets), exact, back.double())
    with torch.autocast("cpu", torch.bfloat16):
        by_autocast = with_gradients(by_definition(targets), [i.float() for i in inputs], back)
    found = with_gradients(by_kernel(targets), inputs, back)
    assert found[0].dtype == torch.float32
    for one, rough, right in zip(found, by_autocast, expected, strict=True):
        assert off(one, right) < max(1.2 * off(rough, right), 0.004)
        assert error(one, right) < 0.02


@by_tiles
@pytest.mark.parametrize("sizes", SIZES)
def test_is_its_definition(sizes):
    assert_as_near_as_autocast(*drawn_inputs(*sizes))


@by_tiles
def test_of_codes_that_are_all_but_certain():
    inputs, targets, back = drawn_inputs(64, 32, 64, scale=30.0)
    assert_as_near_as_autocast(inputs, targets, back)
    inputs[2][:] = -200.0
    inputs[2][50] = 200.0
    found = tile_cross_entropy(*inputs, torch.full_like(targets, 50))
    assert found.max() == 0


@by_tiles
@pytest.mark.parametrize("rows", [32, 96, 288, 544])
def test_gradients_of_weight_and_bias_are_those_of_the_rows(rows):
    """Of two codes that are as probable: what the loss takes from one it gives to the other."""
    hidden, weight, bias = drawn(rows, 64), torch.zeros(32, 64), torch.full((32,), -1e4)
    bias[3:5] = 0
    targets, back = torch.full((rows,), 3), drawn(rows).float()
    _, by_weight, by_bias = with_gradients(
        lambda weight, bias: tile_cross_entropy(hidden, weight, bias, targets), [weight, bias], back
    )
    expected = 0.5 * back.double() @ hidden.double()
    assert error(by_weight[4], expected) < 1e-6
    assert error(by_weight[3], -expected) < 1e-6
    assert not by_weight[5:].any()
    assert not by_weight[:3].any()
    assert by_bias[4].item() == pytest.approx(0.5 * back.double().sum().item(), rel=1e-5)
    assert by_bias[3] == -by_bias[4]


@by_tiles
def test_losses_that_nobody_asks_for_have_no_gradient():
    inputs, targets, back = drawn_inputs(64, 32, 64)
    back[::2] = 0
    _, by_hidden, *_ = with_gradients(by_kernel(targets), inputs, back)
    assert not by_hidden[::2].any()
    assert by_hidden[1::2].any(dim=1).all()
    found = with_gradients(by_kernel(targets), inputs, torch.zeros_like(back))
    assert not any(each.any() for each in found[1:])


@by_tiles
@pytest.mark.parametrize("target", [-1, 64, 1 << 40])
def test_what_is_no_code_has_no_loss(target):
    inputs, targets, _ = drawn_inputs(64, 32, 64)
    expected = tile_cross_entropy(*inputs, targets)
    targets[7] = target
    found = tile_cross_entropy(*inputs, targets)
    assert found[7].isnan()
    others = torch.arange(64) != 7
    assert torch.equal(found[others], expected[others])


@by_tiles
@pytest.mark.parametrize("which", range(3))
def test_numbers_that_are_none_are_seen(which):
    inputs, targets, _ = drawn_inputs(64, 32, 64)
    inputs[which].view(-1)[5] = torch.nan
    found = tile_cross_entropy(*inputs, targets)
    # A row of the hidden state, or a code of all rows.
    assert found.isnan().sum() == (1 if which == 0 else 64)


@by_tiles
def test_a_row_does_not_depend_on_the_others():
    inputs, targets, back = drawn_inputs(96, 32, 64)
    whole = with_gradients(by_kernel(targets), inputs, back)
    for start in (0, 32, 64):
        here = slice(start, start + 32)
        given = [inputs[0][here], *inputs[1:]]
        alone = with_gradients(by_kernel(targets[here]), given, back[here])
        assert torch.equal(whole[0][here], alone[0])
        assert torch.equal(whole[1][here], alone[1])


@by_tiles
@pytest.mark.parametrize("sizes", [(1120, 32, 64), (2048, 96, 160)])
def test_does_not_depend_on_threads(sizes):
    inputs, targets, back = drawn_inputs(*sizes)

    def found():
        # In this thread: those of autograd may have another number of threads.
        losses, *kept = _cross_entropy(*inputs, targets)
        return losses, *_cross_entropy_gradient(back, *inputs[:2], targets, *kept)

    assert is_the_same_every_time(found)


@by_tiles
def test_what_is_given_and_what_comes_back_may_lie_anyhow():
    inputs, targets, back = drawn_inputs(64, 32, 64)
    expected = with_gradients(by_kernel(targets), inputs, torch.full_like(back, 0.25))
    views = [dense(each.mT).mT if each.dim() == 2 else each for each in inputs]
    apart = targets.repeat_interleave(2)[::2]
    found = with_gradients(by_kernel(apart), views, torch.tensor(0.25).expand(64))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_outside_compiled_code_it_is_computed_as_it_stands():
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_compare_with_tiles(torch.zeros(32, 32), torch.zeros(32, 32))


@by_tiles
def test_tiles_take_sizes_that_are_multiples_of_32():
    with as_if_compiled():
        assert can_compare_with_tiles(torch.zeros(32, 64), torch.zeros(96, 64))
        assert can_compare_with_tiles(torch.zeros(32, 64).bfloat16(), torch.zeros(96, 64))
        for hidden, weight in (
            (torch.zeros(33, 64), torch.zeros(96, 64)),
            (torch.zeros(0, 64), torch.zeros(96, 64)),
            (torch.zeros(32, 40), torch.zeros(96, 40)),
            (torch.zeros(32, 64), torch.zeros(100, 64)),
            (torch.zeros(32, 64), torch.zeros(96, 64).bfloat16()),
        ):
            assert not can_compare_with_tiles(hidden, weight)
        with torch.no_grad():
            assert not can_compare_with_tiles(torch.zeros(32, 64), torch.zeros(96, 64))
