"""Norms with what surrounds them, in one pass: the numbers and gradients of several."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.attention import SelfAttention
from stages.nn.kernels.norm_kernels import (
    _add_and_norm,
    _add_and_norm_gradient,
    _AddAndNorm,
    _compare,
    _compare_gradient,
    _Compared,
    can_add_and_norm,
    can_compare,
)
from stages.nn.rms_norm import RMSNorm, rms_norm
from stages.nn.rotary import Rotations, rotated
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.kernels.tile_cases import (
    as_if_compiled,
    dense,
    drawn,
    error,
    is_the_same_every_time,
    with_gradients,
)
from tests.priors.sections import BLOCKS

BATCH, TOKENS, HEADS = 2, 65, 3
# Sums in float32.
EXACT = 1e-6


by_tiles = pytest.mark.usefixtures("_tiles")


def assert_rounded(found, exact):
    """Of bfloat16, and each number the nearest one but for errors of float32."""
    assert found.dtype == torch.bfloat16
    least = EXACT * exact.abs().max().item()
    torch.testing.assert_close(found.double(), exact.double(), rtol=2**-8, atol=least)


def a_stream(*shape):
    """Stream, what is added, weight; what comes back of sum and norm."""
    torch.manual_seed(shape[-1])
    stream = 3 + torch.randn(shape)
    return stream, drawn(*shape), torch.randn(shape[-1]), torch.randn(shape), drawn(*shape)


def added_and_normed(stream, added, weight):
    total = stream + added
    return total, F.rms_norm(total, total.shape[-1:], weight, torch.finfo(torch.float32).eps)


@by_tiles
@pytest.mark.parametrize("shape", [(7, 32), (64, 32), (130, 32), (7, 384), (130, 384), (2, 65, 96)])
def test_a_sum_and_its_norm_are_those_of_pytorch(shape):
    *inputs, by_total, by_normed = a_stream(*shape)
    stream, added, weight = inputs
    found = with_gradients(_AddAndNorm.apply, inputs, by_total, by_normed)
    # The gradients are those at the sum as it was rounded.
    exact = [(stream + added.float()).double(), torch.zeros(shape).double(), weight.double()]
    back = by_total.double(), by_normed.double()
    expected = with_gradients(added_and_normed, exact, *back)
    assert torch.equal(found[0], stream + added.float())
    assert_rounded(found[1], expected[1])
    assert error(found[2], expected[2]) < EXACT
    assert torch.equal(found[3], found[2].bfloat16())
    assert error(found[4], expected[4]) < EXACT


@by_tiles
def test_rows_near_zero_are_normed_with_the_epsilon_of_float32():
    stream, added, weight, *_ = a_stream(33, 64)
    inputs = 1e-4 * stream, (1e-4 * added.float()).bfloat16(), weight
    total, normed = _AddAndNorm.apply(*inputs)
    assert_rounded(normed, added_and_normed(total, 0, weight)[1])


@by_tiles
def test_the_sum_alone_hands_back_what_it_gets():
    stream, added, weight, back, _ = a_stream(33, 64)
    leaves = [each.requires_grad_() for each in (stream, added, weight)]
    total, _ = _AddAndNorm.apply(*leaves)
    by_stream, by_added, by_weight = torch.autograd.grad(total, leaves, back)
    assert torch.equal(by_stream, back)
    assert torch.equal(by_added, back.bfloat16())
    assert not by_weight.any()


@by_tiles
def test_the_norm_alone_has_its_own_gradient():
    stream, added, weight, _, back = a_stream(33, 64)
    leaves = [each.requires_grad_() for each in (stream, added, weight)]
    found = torch.autograd.grad(_AddAndNorm.apply(*leaves)[1], leaves, back)
    expected = torch.autograd.grad(added_and_normed(*leaves)[1], leaves, back.float())
    assert error(found[0], expected[0]) < 3 * EXACT
    assert error(found[2], expected[2]) < 3 * EXACT


@by_tiles
def test_a_row_of_zeros_stays_one_and_has_a_finite_gradient():
    _, _, weight, by_total, by_normed = a_stream(5, 32)
    zeros = torch.zeros(5, 32)
    inputs = zeros, zeros.bfloat16(), weight
    total, normed, *gradients = with_gradients(_AddAndNorm.apply, inputs, by_total, by_normed)
    assert not total.any() and not normed.any()
    assert all(each.isfinite().all() for each in gradients)


@by_tiles
def test_sums_and_norms_of_views_and_what_comes_back_as_views():
    *inputs, by_total, by_normed = a_stream(64, 64)
    expected = with_gradients(_AddAndNorm.apply, inputs, by_total, by_normed)
    stream, added, weight = inputs
    views = [dense(each.T).T for each in (stream, added)]
    back = dense(by_total.T).T, by_normed.repeat_interleave(2, dim=1)[:, ::2]
    found = with_gradients(_AddAndNorm.apply, (*views, weight), *back)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@by_tiles
@pytest.mark.parametrize("rows", [7, 300])
def test_sums_and_norms_do_not_depend_on_threads(rows):
    stream, added, weight, by_total, by_normed = a_stream(rows, 96)

    def compute():
        total, normed = _add_and_norm(stream, added, weight)
        return total, normed, *_add_and_norm_gradient(by_total, by_normed, total, weight)

    assert is_the_same_every_time(compute)


def turns(images, head_dim):
    """Rotations for all images alike, for each its own, or none."""
    if images == 0:
        return None
    queries, keys = (torch.randint(16, (images, TOKENS, 2)).float() for _ in range(2))
    return Rotations.of(queries, keys, head_dim)


def projections(head_dim, images, normalised, batch=BATCH):
    """Projections, gain and rotations, and what comes back of queries, keys and values."""
    torch.manual_seed(head_dim + images)
    back = [drawn(batch, HEADS, TOKENS, head_dim) for _ in range(3)]
    gain = 1 + 0.5 * torch.randn(2, 1, head_dim) if normalised else None
    return drawn(batch, TOKENS, 3, HEADS, head_dim), gain, turns(images, head_dim), back


def by_kernel(rotations):
    given = (None, None) if rotations is None else (rotations.cosines, rotations.sines)
    return lambda projected, gain=None: _Compared.apply(projected, gain, *given)


def as_it_stands(rotations):
    """As in `SelfAttention`, in float32 to the end."""

    def prepared(projected, gain=None):
        compared, values = projected.split((2, 1), dim=2)
        if gain is not None:
            compared = rms_norm(compared) * gain
        if rotations is not None:
            compared = rotated(compared, rotations)
        return *compared.permute(2, 0, 3, 1, 4), values.squeeze(2).transpose(1, 2)

    return prepared


in_all_ways = pytest.mark.parametrize(
    ("normalised", "images"),
    [(True, 1), (True, BATCH), (True, 0), (False, 1), (False, BATCH), (False, 0)],
)


@by_tiles
@in_all_ways
@pytest.mark.parametrize("head_dim", [32, 64, 96])
def test_queries_keys_and_values_are_made_as_attention_makes_them(head_dim, normalised, images):
    projected, gain, rotations, back = projections(head_dim, images, normalised)
    inputs = [each for each in (projected, gain) if each is not None]
    found = with_gradients(by_kernel(rotations), inputs, *back)
    exact = [each.float() for each in inputs]
    expected = with_gradients(as_it_stands(rotations), exact, *(each.float() for each in back))
    for one, other in zip(found[:4], expected[:4], strict=True):
        assert_rounded(one, other)
    assert torch.equal(found[2], projected[:, :, 2].transpose(1, 2))
    assert torch.equal(found[3][:, :, 2], back[2].transpose(1, 2))
    if normalised:
        assert error(found[4], expected[4]) < EXACT
    elif rotations is None:
        assert torch.equal(torch.stack(found[:3]), projected.permute(2, 0, 3, 1, 4))


@by_tiles
def test_images_have_turns_of_their_own():
    projected, gain, rotations, _ = projections(32, BATCH, normalised=True)
    whole = by_kernel(rotations)(projected, gain)
    for image in range(BATCH):
        here = slice(image, image + 1)
        own = Rotations(rotations.cosines[here], rotations.sines[here])
        alone = by_kernel(own)(projected[here], gain)
        assert all(torch.equal(one[here], other) for one, other in zip(whole, alone, strict=True))


@by_tiles
def test_values_alone_leave_the_rest_without_gradient():
    projected, gain, rotations, back = projections(32, 1, normalised=True)
    leaves = projected.requires_grad_(), gain.requires_grad_()
    values = by_kernel(rotations)(*leaves)[2]
    by_projected, by_gain = torch.autograd.grad(values, leaves, back[2])
    assert torch.equal(by_projected[:, :, 2], back[2].transpose(1, 2))
    assert not by_projected[:, :, :2].any() and not by_gain.any()


@by_tiles
def test_heads_may_lie_anyhow():
    projected, gain, rotations, back = projections(32, BATCH, normalised=True)
    expected = with_gradients(by_kernel(rotations), (projected, gain), *back)
    among_others = torch.cat([projected, projected], dim=1)[:, :TOKENS]
    as_tokens = [dense(each.transpose(1, 2)).transpose(1, 2) for each in back]
    found = with_gradients(by_kernel(rotations), (among_others, gain), *as_tokens)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@by_tiles
@in_all_ways
def test_comparing_does_not_depend_on_threads(normalised, images):
    projected, gain, rotations, back = projections(64, images, normalised)
    given = (None, None) if rotations is None else (rotations.cosines, rotations.sines)

    def compute():
        by_projected, by_gain = _compare_gradient(*back, projected, gain, *given)
        found = _compare(projected, gain, *given), by_projected
        return (*found, by_gain) if normalised else found

    assert is_the_same_every_time(compute)


def test_what_was_added_to_a_stream_is_summed_and_normed():
    torch.manual_seed(0)
    stream, added, norm = torch.randn(2, 5, 12), torch.randn(2, 5, 12), RMSNorm(12)
    norm.weight.data.normal_()
    total, normed = norm.after(stream, added)
    assert torch.equal(total, stream + added)
    assert torch.equal(normed, norm(stream + added))
    same, normed = norm.after(stream, None)
    assert same is stream
    assert torch.equal(normed, norm(stream))


def test_outside_compiled_code_kernels_are_not_used():
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_add_and_norm(torch.zeros(7, 32))
        assert not can_compare(torch.zeros(1, 7, 3, 2, 32).bfloat16())


@by_tiles
def test_kernels_take_trainings_in_bfloat16_with_widths_that_are_multiples_of_32():
    with as_if_compiled():
        assert can_add_and_norm(torch.zeros(7, 32))
        assert not can_add_and_norm(torch.zeros(7, 48))
        assert not can_add_and_norm(torch.zeros(7, 32).bfloat16())
        assert can_compare(torch.zeros(1, 7, 3, 2, 32).bfloat16())
        assert not can_compare(torch.zeros(1, 7, 3, 2, 32))
        assert not can_compare(torch.zeros(1, 7, 3, 2, 16).bfloat16())
        with torch.no_grad():
            assert not can_add_and_norm(torch.zeros(7, 32))
            assert not can_compare(torch.zeros(1, 7, 3, 2, 32).bfloat16())
        with torch.autocast("cpu", enabled=False):
            assert not can_add_and_norm(torch.zeros(7, 32))
            assert not can_compare(torch.zeros(1, 7, 3, 2, 32).bfloat16())


@by_tiles
def test_a_norm_behind_a_stream_is_the_same_with_the_kernel_and_without():
    stream, added, weight, *_ = a_stream(2, 33, 64)
    norm = RMSNorm(64)
    norm.weight.data.copy_(weight)
    expected = norm.after(stream, added)
    with as_if_compiled():
        found = norm.after(stream, added)
    assert "_AddAndNorm" in found[0].grad_fn.name()
    assert torch.equal(found[0], expected[0])
    assert_rounded(found[1], expected[1])


@by_tiles
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("images", [0, 1, BATCH])
def test_attention_prepares_the_same_with_the_kernel_and_without(normalised, images):
    torch.manual_seed(0)
    options = {**BLOCKS, "width": 64, "num_heads": 2, "query_key_norm": normalised}
    attention, rotations = SelfAttention(CausalTransformerOptions(**options)), turns(images, 32)
    inputs = torch.randn(BATCH, TOKENS, 64)
    with torch.autocast("cpu", torch.bfloat16):
        expected = attention._queries_keys_values(inputs, rotations)
    with as_if_compiled():
        found = attention._queries_keys_values(inputs, rotations)
    for one, other in zip(found, expected, strict=True):
        assert "_Compared" in one.grad_fn.name()
        assert "_Compared" not in other.grad_fn.name()
        # Both rounded, the same but for a tie now and then.
        torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-5)
