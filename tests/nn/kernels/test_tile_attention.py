"""Attention by tile registers: values and gradients of the definition; nobody sees the future."""

import pytest
import torch

from stages.nn.kernels.tile_attention import (
    _Attention,
    _backward,
    _forward,
    attend_with_tiles,
    can_attend_with_tiles,
)
from stages.nn.softmax_attention import attend
from tests.nn.kernels.tile_cases import (
    as_if_compiled,
    by_tiles,
    dense,
    drawn,
    error,
    is_the_same_every_time,
    with_gradients,
)

BATCH, HEADS = 2, 3
# Weights and results in bfloat16.
ROUNDED = 0.01


causal_or_not = pytest.mark.parametrize("causal", [False, True])


def heads(tokens, head_dim, batch=BATCH):
    """Queries, keys, values as the model has them, and what comes back."""
    torch.manual_seed(tokens + head_dim)
    projected = drawn(batch, tokens, 3, HEADS, head_dim)
    return *projected.permute(2, 0, 3, 1, 4), drawn(batch, HEADS, tokens, head_dim)


def by_tiles_of(causal):
    return lambda *inputs: _Attention.apply(*inputs, causal)


def defined(causal):
    def attention(queries, keys, values):
        logits = queries @ keys.mT / queries.shape[-1] ** 0.5
        if causal:
            future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(future, -torch.inf)
        return logits.softmax(dim=-1) @ values

    return attention


def errors(inputs, back, causal):
    """Of the mixture and of the gradients of queries, keys and values."""
    found = with_gradients(by_tiles_of(causal), inputs, back)
    exact = [each.double() for each in inputs]
    expected = with_gradients(defined(causal), exact, back.double())
    return [error(*pair) for pair in zip(found, expected, strict=True)]


@by_tiles
@causal_or_not
@pytest.mark.parametrize("tokens", [32, 64, 96, 256])
@pytest.mark.parametrize("head_dim", [32, 64, 96])
def test_values_and_gradients_are_those_of_the_definition(tokens, head_dim, causal):
    *inputs, back = heads(tokens, head_dim)
    assert max(errors(inputs, back, causal)) < ROUNDED


@by_tiles
@causal_or_not
def test_the_longest_sequence_is_right_too(causal):
    *inputs, back = heads(1024, 32, batch=1)
    assert max(errors(inputs, back, causal)) < ROUNDED


@by_tiles
@causal_or_not
@pytest.mark.parametrize("tokens", [32, 96])
def test_large_logits_give_the_definition_too(tokens, causal):
    queries, keys, values, back = heads(tokens, 64)
    assert max(errors((30 * queries, keys, values), back, causal)) < 2 * ROUNDED


@by_tiles
@causal_or_not
@pytest.mark.parametrize("shift", [2000.0, -2000.0])
def test_what_all_logits_of_a_query_share_does_not_count(shift, causal):
    queries, keys, values, _ = heads(64, 32)
    queries, keys = queries.clone(), keys.clone()
    queries[..., 0], keys[..., 0] = 1, 0
    expected = defined(causal)(*(each.double() for each in (queries, keys, values)))
    keys[..., 0] = shift
    found = _Attention.apply(queries, keys, values, causal)
    assert error(found, expected) < ROUNDED


@by_tiles
def test_the_first_position_sees_itself_alone():
    queries, keys, values, _ = heads(64, 32)
    mixed = _Attention.apply(30 * queries, keys, values, True)
    assert torch.equal(mixed[:, :, 0], values[:, :, 0])


@by_tiles
@causal_or_not
def test_equal_logits_give_the_mean_of_what_is_seen(causal):
    _, keys, values, _ = heads(96, 32)
    mixed = _Attention.apply(torch.zeros_like(keys), keys, values, causal)
    expected = values.double().mean(dim=2, keepdim=True).expand_as(values)
    if causal:
        expected = values.double().cumsum(dim=2) / torch.arange(1, 97)[:, None]
    torch.testing.assert_close(mixed.double(), expected, rtol=2**-8, atol=2**-9)


@by_tiles
@pytest.mark.parametrize("position", [1, 31, 32, 45, 64, 95])
def test_nothing_later_changes_a_bit_of_what_is_before(position):
    queries, keys, values, _ = heads(96, 32)
    mixed = _Attention.apply(queries, keys, values, True)
    later = torch.arange(96)[:, None] >= position
    keys, values = (torch.where(later, 5 - each, each) for each in (keys, values))
    changed = _Attention.apply(queries, keys, values, True)
    assert torch.equal(mixed[:, :, :position], changed[:, :, :position])
    assert not torch.equal(mixed[:, :, position], changed[:, :, position])


@by_tiles
@pytest.mark.parametrize("position", [1, 31, 32, 45, 64, 95])
def test_what_comes_back_to_a_position_reaches_nothing_later(position):
    *inputs, back = heads(96, 32)
    back = torch.where(torch.arange(96)[:, None] < position, back, 0)
    _, *gradients = with_gradients(by_tiles_of(True), inputs, back)
    for gradient in gradients:
        assert not gradient[:, :, position:].any()
        # A query that sees itself alone has no gradient.
        assert position == 1 or gradient[:, :, position - 1].any()


@by_tiles
@causal_or_not
def test_heads_and_images_have_nothing_to_do_with_each_other(causal):
    *inputs, back = heads(64, 32)
    whole = with_gradients(by_tiles_of(causal), inputs, back)
    part = [each[1:, 1:2] for each in (*inputs, back)]
    alone = with_gradients(by_tiles_of(causal), part[:3], part[3])
    assert all(torch.equal(one[1:, 1:2], other) for one, other in zip(whole, alone, strict=True))


@by_tiles
@causal_or_not
def test_gradients_reach_the_projection_that_all_three_are_views_of(causal):
    torch.manual_seed(0)
    projected, back = drawn(BATCH, 64, 3, HEADS, 32), drawn(BATCH, HEADS, 64, 32)

    def of(attention):
        return lambda projected: attention(*projected.permute(2, 0, 3, 1, 4))

    found = with_gradients(of(by_tiles_of(causal)), [projected], back)
    expected = with_gradients(of(defined(causal)), [projected.double()], back.double())
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) < ROUNDED


LAYOUTS = {
    "dense": dense,
    "tokens first": lambda x: dense(x.transpose(1, 2)).transpose(1, 2),
    "numbers apart": lambda x: dense(x.mT).mT,
    "every second": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "among others": lambda x: torch.cat([x, x + 1], dim=3)[..., : x.shape[3]],
}


@by_tiles
@causal_or_not
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_strides_do_not_matter(layout, causal):
    *inputs, back = heads(64, 32)
    expected = with_gradients(by_tiles_of(causal), inputs, back)
    found = with_gradients(by_tiles_of(causal), [layout(each) for each in inputs], layout(back))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@by_tiles
def test_what_comes_back_may_be_one_number():
    *inputs, _ = heads(64, 32)
    one = torch.ones((), dtype=torch.bfloat16).expand(inputs[0].shape)
    found = with_gradients(by_tiles_of(True), inputs, one)
    expected = with_gradients(by_tiles_of(True), inputs, dense(one))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@by_tiles
def test_heads_of_a_token_come_out_side_by_side():
    *inputs, back = heads(64, 32)
    for each in with_gradients(by_tiles_of(True), inputs, back):
        assert each.transpose(1, 2).is_contiguous()


@by_tiles
@causal_or_not
def test_results_do_not_depend_on_threads(causal):
    *inputs, back = heads(160, 64)

    def compute():
        mixed, sums = _forward(*inputs, causal)
        return mixed, sums, *_backward(back, *inputs, mixed, sums, causal)

    assert is_the_same_every_time(compute)


def test_outside_compiled_code_tiles_are_not_used():
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_attend_with_tiles(heads(64, 32)[0])


@by_tiles
def test_tiles_take_short_sequences_in_bfloat16_with_sizes_that_are_multiples_of_32():
    def suits(*shape, dtype=torch.bfloat16):
        return can_attend_with_tiles(torch.zeros(shape, dtype=dtype))

    with as_if_compiled():
        assert suits(2, 3, 64, 32) and suits(1, 1, 1024, 96)
        assert not suits(2, 3, 33, 32)
        assert not suits(1, 1, 1056, 32)
        assert not suits(2, 3, 64, 48)
        assert not suits(2, 3, 64, 32, dtype=torch.float32)
        with torch.no_grad():
            assert not suits(2, 3, 64, 32)


@by_tiles
@causal_or_not
def test_attend_chooses_them_and_not_with_dropout(causal):
    *inputs, _ = heads(64, 32)
    inputs = [each.clone().requires_grad_() for each in inputs]
    expected = attend(*inputs, causal=causal)
    with as_if_compiled():
        found = attend(*inputs, causal=causal)
        dropped = attend(*inputs, causal=causal, dropout=0.5)
    assert "_Attention" in found.grad_fn.name()
    assert not any("_Attention" in each.grad_fn.name() for each in (expected, dropped))
    assert torch.equal(found, attend_with_tiles(*inputs, causal=causal))
    assert error(found, expected) < 2 * ROUNDED
