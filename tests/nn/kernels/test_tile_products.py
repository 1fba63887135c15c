"""Linear and gated layers by tile registers: values and gradients of the definition."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.kernels.tile_products import (
    Linear,
    _feed_forward,
    _feed_forward_gradient,
    _GatedFeedForward,
    _Linear,
    _weight_gradient,
    can_use_tiles,
)
from stages.nn.transformer import GatedFeedForward
from tests.nn.kernels.tile_cases import (
    as_if_compiled,
    dense,
    drawn,
    error,
    is_the_same_every_time,
    with_gradients,
)
from tests.programs import run_module

# Sums in float32, and numbers that are rounded to bfloat16 on the way.
EXACT, ROUNDED = 1e-6, 0.008


by_tiles = pytest.mark.usefixtures("_tiles")


def doubles(tensors):
    return [each.double() for each in tensors]


def gated(x, weight_in, weight_out):
    gate, up = F.linear(x, weight_in).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, weight_out)


def a_gated_layer(rows, width, hidden, gate_scale=1.0):
    """Input, weights, and what comes back."""
    torch.manual_seed(rows)
    return (
        drawn(rows, width),
        drawn(2 * hidden, width, dtype=torch.float32, scale=gate_scale * width**-0.5),
        drawn(width, hidden, dtype=torch.float32, scale=hidden**-0.5),
        drawn(rows, width),
    )


@by_tiles
@pytest.mark.parametrize("rows", [32, 96, 256, 288, 544])
@pytest.mark.parametrize(("width", "out"), [(32, 32), (32, 96), (96, 96), (160, 32), (96, 64)])
def test_gradients_of_weights_are_exact_to_float32(rows, width, out):
    torch.manual_seed(rows)
    gradient, x = drawn(rows, out), drawn(rows, width)
    found = _weight_gradient(gradient, x)
    assert found.dtype == torch.float32
    assert error(found, gradient.double().T @ x.double()) < EXACT


@by_tiles
def test_gradients_of_weights_are_summed_over_all_leading_axes():
    gradient, x = drawn(2, 3, 48, 64), drawn(2, 3, 48, 96)
    found = _weight_gradient(gradient, x)
    assert torch.equal(found, _weight_gradient(gradient.flatten(0, 2), x.flatten(0, 2)))
    assert error(found, torch.einsum("abro,abri->oi", gradient.double(), x.double())) < EXACT


@by_tiles
def test_rows_that_are_not_side_by_side_are_read_as_they_are():
    gradient, x = drawn(64, 96).T, drawn(96, 2, 32)[:, 1]
    assert torch.equal(_weight_gradient(gradient, x), _weight_gradient(*map(dense, (gradient, x))))


@by_tiles
@pytest.mark.parametrize(("width", "out"), [(64, 96), (96, 64)])
def test_a_linear_layer_is_that_of_pytorch(width, out):
    inputs = drawn(2, 144, width), drawn(out, width, dtype=torch.float32, scale=width**-0.5)
    back = drawn(2, 144, out)
    found = with_gradients(_Linear.apply, inputs, back)
    expected = with_gradients(F.linear, doubles(inputs), back.double())
    assert [each.dtype for each in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert error(found[0], expected[0]) < ROUNDED
    assert error(found[1], expected[1]) < ROUNDED
    assert error(found[2], expected[2]) < EXACT


@by_tiles
@pytest.mark.parametrize(
    ("rows", "width", "hidden"),
    [
        (32, 32, 32),
        (64, 64, 32),
        (320, 32, 64),
        (96, 96, 64),
        (288, 64, 96),
        (32, 160, 96),
        (64, 96, 32),
        # More than a core keeps of either weight: in pieces.
        (64, 416, 2048),
    ],
)
def test_a_gated_layer_is_its_definition(rows, width, hidden):
    *inputs, back = a_gated_layer(rows, width, hidden)
    found = with_gradients(_GatedFeedForward.apply, inputs, back)
    expected = with_gradients(gated, doubles(inputs), back.double())
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) < ROUNDED


@by_tiles
def test_gates_that_are_wide_open_or_shut_give_no_nan():
    *inputs, back = a_gated_layer(64, 32, 64, gate_scale=200.0)
    found = with_gradients(_GatedFeedForward.apply, inputs, back)
    expected = with_gradients(gated, doubles(inputs), back.double())
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) < ROUNDED


@by_tiles
def test_a_gated_layer_keeps_leading_axes():
    x, *weights, back = a_gated_layer(192, 64, 96)
    flat = with_gradients(_GatedFeedForward.apply, (x, *weights), back)
    deep = with_gradients(
        _GatedFeedForward.apply, (x.view(2, 3, 32, 64), *weights), back.view(2, 3, 32, 64)
    )
    assert deep[0].shape == deep[1].shape == (2, 3, 32, 64)
    assert all(torch.equal(one, other.view_as(one)) for one, other in zip(flat, deep, strict=True))


@by_tiles
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda back: dense(back.T).T,
        lambda back: back[:1].expand(len(back), -1),
        lambda back: back[:1, :1].expand(back.shape),
        lambda back: back.repeat_interleave(2, dim=1)[:, ::2],
    ],
    ids=["turned", "one row", "one number", "every second"],
)
@pytest.mark.parametrize("of", ["linear", "gated"])
def test_what_comes_back_may_lie_anyhow(laid_out, of):
    x, weight_in, weight_out, back = a_gated_layer(96, 64, 64)
    apply, inputs = {
        "linear": (_Linear.apply, (x, weight_out)),
        "gated": (_GatedFeedForward.apply, (dense(x.T).T, weight_in, weight_out)),
    }[of]
    back = laid_out(back)
    assert not back.is_contiguous()
    found = with_gradients(apply, inputs, back)
    expected = with_gradients(apply, [dense(each) for each in inputs], dense(back))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@by_tiles
@pytest.mark.parametrize(("width", "out"), [(64, 160), (160, 64)])
def test_gradients_of_weights_do_not_depend_on_threads(width, out):
    gradient, x = drawn(544, out), drawn(544, width)
    assert is_the_same_every_time(lambda: (_weight_gradient(gradient, x),))


@by_tiles
@pytest.mark.parametrize("hidden", [64, 256])
def test_a_gated_layer_does_not_depend_on_threads(hidden):
    x, weight_in, weight_out, back = a_gated_layer(544, 96, hidden)

    def compute():
        output, kept = _feed_forward(x, weight_in, weight_out)
        return output, *_feed_forward_gradient(back, x, weight_in, weight_out, kept)

    assert is_the_same_every_time(compute)


def test_outside_compiled_code_layers_are_computed_as_they_stand():
    x, weight = torch.zeros(32, 64, requires_grad=True), torch.zeros(96, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_use_tiles(x, weight)


@by_tiles
def test_tiles_take_trainings_in_bfloat16_with_sizes_that_are_multiples_of_32():
    weight = torch.zeros(96, 64)
    with as_if_compiled():
        assert can_use_tiles(torch.zeros(2, 16, 64), weight)
        assert not can_use_tiles(torch.zeros(33, 64), weight)
        assert not can_use_tiles(torch.zeros(32, 24), torch.zeros(96, 24))
        assert not can_use_tiles(torch.zeros(32, 64), torch.zeros(40, 64))
        assert not can_use_tiles(torch.zeros(32, 64), weight.double())
        assert not can_use_tiles(torch.zeros(32, 64, device="meta"), weight)
        with torch.no_grad():
            assert not can_use_tiles(torch.zeros(32, 64), weight)
        with torch.autocast("cpu", torch.float16):
            assert not can_use_tiles(torch.zeros(32, 64), weight)
        with torch.autocast("cpu", enabled=False):
            assert not can_use_tiles(torch.zeros(32, 64), weight)


@by_tiles
@pytest.mark.parametrize(("width", "tiles"), [(64, True), (24, False)])
def test_layers_give_the_same_with_tiles_and_without(width, tiles):
    torch.manual_seed(0)
    x = drawn(2, 48, width, dtype=torch.float32)
    for layer in (Linear(width, width), GatedFeedForward(width)):
        expected = layer(x)
        with as_if_compiled():
            found = layer(x)
        assert ("_Linear" in str(found.grad_fn) or "_Gated" in str(found.grad_fn)) == tiles
        assert error(found, expected) < ROUNDED


@by_tiles
@pytest.mark.slow
def test_compiled_layers_of_any_size_are_those_of_pytorch(project):
    run_module(project, "tests.nn.kernels.tile_cases", "layers_of_any_size_are_those_of_pytorch")


@by_tiles
@pytest.mark.slow
def test_a_compiled_prior_trains_as_one_that_is_not(project):
    run_module(project, "tests.nn.kernels.tile_cases", "a_prior_trains_as_one_that_is_not_compiled")
