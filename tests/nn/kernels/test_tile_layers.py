"""The layers of a block by tile registers: values and gradients of the definition."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.kernels.tile_layers import (
    _attention,
    _attention_gradient,
    _feed_forward,
    _feed_forward_gradient,
    attention_layer,
    can_attend_with_tiles,
    can_train_with_tiles,
    feed_forward_layer,
)
from stages.nn.rotary import Rotations
from stages.nn.transformer import Block
from stages.nn.transformer_options import CausalTransformerOptions
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
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS
from tests.programs import run_module

BATCH, HEADS = 3, 2
EPSILON = torch.finfo(torch.float32).eps
# Sums in float32.
EXACT = 1e-6


def turns(images, tokens, head_dim):
    """Rotations for all images alike, for each its own, or none."""
    if images == 0:
        return None
    queries, keys = (torch.randint(16, (images, tokens, 2)).float() for _ in range(2))
    return Rotations.of(queries, keys, head_dim)


def a_stream(batch, tokens, width):
    """The stream and what is added; what comes back of their sum and of the layer."""
    shape = batch, tokens, width
    back = 0.5 * torch.randn(shape), drawn(*shape)
    return 1 + torch.randn(shape), drawn(*shape), back


def weight(out, width):
    return drawn(out, width, dtype=torch.float32, scale=width**-0.5)


class Attention:
    """An attention layer by the kernel, and by its definition."""

    def __init__(self, batch, tokens, head_dim, *, normalised=True, images=1):
        torch.manual_seed(tokens + head_dim)
        self.heads, width = HEADS, HEADS * head_dim
        stream, added, self.back = a_stream(batch, tokens, width)
        gain = [1 + 0.5 * torch.randn(2, 1, head_dim)] if normalised else []
        weights = weight(3 * width, width), weight(width, width)
        self.inputs = [stream, added, 1 + 0.5 * torch.randn(width), *weights, *gain]
        self.rotations = turns(images, tokens, head_dim)

    def by_kernel(self, stream, added, norm, weight_in, weight_out, gain=None):
        weights = norm, weight_in, gain, self.rotations, weight_out
        return attention_layer(stream, added, *weights, self.heads)

    def by_definition(self, stream, added, norm, weight_in, weight_out, gain=None):
        total = stream + added
        projected = F.linear(F.rms_norm(total, norm.shape, norm, EPSILON), weight_in)
        projected = projected.unflatten(2, (3, self.heads, -1))
        compared, values = projected[:, :, :2].to(norm.dtype), projected[:, :, 2]
        if gain is not None:
            compared = F.rms_norm(compared, compared.shape[-1:], None, EPSILON) * gain
        if self.rotations is not None:
            both = self.rotations.cosines, self.rotations.sines
            compared = turned(compared, *(each.to(norm.dtype) for each in both))
        queries, keys = compared.to(values.dtype).permute(2, 0, 3, 1, 4)
        logits = queries @ keys.mT / queries.shape[-1] ** 0.5
        future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        weights = logits.masked_fill(future, -torch.inf).softmax(dim=-1)
        mixed = weights.to(values.dtype) @ values.transpose(1, 2)
        return total, F.linear(mixed.transpose(1, 2).flatten(2), weight_out)


def turned(compared, cosines, sines):
    first, second = compared.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class FeedForward:
    """The same of a feed-forward layer."""

    def __init__(self, batch, tokens, width, hidden, gate_scale=1.0):
        torch.manual_seed(tokens + width)
        stream, added, self.back = a_stream(batch, tokens, width)
        weights = gate_scale * weight(2 * hidden, width), weight(width, hidden)
        self.inputs = [stream, added, 1 + 0.5 * torch.randn(width), *weights]

    def by_kernel(self, *inputs):
        return feed_forward_layer(*inputs)

    def by_definition(self, stream, added, norm, weight_in, weight_out):
        total = stream + added
        both = F.linear(F.rms_norm(total, norm.shape, norm, EPSILON), weight_in)
        gate, up = both.chunk(2, dim=-1)
        return total, F.linear(F.silu(gate) * up, weight_out)


LAYERS = [lambda: Attention(BATCH, 64, 32), lambda: FeedForward(BATCH, 64, 64, 96)]
each_layer = pytest.mark.parametrize("make", LAYERS, ids=["attention", "feed-forward"])


def results(layer):
    return with_gradients(layer.by_kernel, layer.inputs, *layer.back)


def assert_as_near_as_autocast(layer, allowed=0.02):
    """Sum and output, and the gradients of all inputs."""
    exact = [each.double() for each in layer.inputs]
    expected = with_gradients(layer.by_definition, exact, *(each.double() for each in layer.back))
    with torch.autocast("cpu", torch.bfloat16):
        given = [each.float() for each in layer.inputs]
        by_autocast = with_gradients(layer.by_definition, given, *layer.back)
    found = results(layer)
    assert torch.equal(found[0], layer.inputs[0] + layer.inputs[1].float())
    assert found[1].dtype == torch.bfloat16
    assert torch.equal(found[3], found[2].bfloat16())
    for one, rough, right in zip(found, by_autocast, expected, strict=True):
        assert off(one, right) < max(1.4 * off(rough, right), 0.006)
        assert off(one, right) < allowed
        # No mean hides a few that are wrong.
        assert error(one, right) < 0.05


@by_tiles
@pytest.mark.parametrize("tokens", [32, 64, 96, 256])
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128])
def test_attention_is_its_definition(tokens, head_dim):
    assert_as_near_as_autocast(Attention(BATCH, tokens, head_dim))


@by_tiles
@pytest.mark.parametrize(("batch", "tokens"), [(32, 3), (64, 7), (2, 16), (64, 49), (8, 100)])
@pytest.mark.parametrize("normalised", [True, False])
def test_attention_of_images_that_are_no_whole_blocks(batch, tokens, normalised):
    layer = Attention(batch, tokens, 32, normalised=normalised, images=batch)
    # Whoever looks behind an image sees another one.
    layer.inputs[0][1::2] *= 50
    layer.back[1][1::2] *= 50
    assert_as_near_as_autocast(layer)


@by_tiles
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("images", [0, 1, BATCH])
def test_attention_normalised_or_not_and_turned_in_any_way(normalised, images):
    assert_as_near_as_autocast(Attention(BATCH, 64, 32, normalised=normalised, images=images))


@by_tiles
def test_attention_of_the_longest_sequence():
    assert_as_near_as_autocast(Attention(1, 1024, 32))


@by_tiles
@pytest.mark.parametrize(
    ("batch", "tokens", "width", "hidden"),
    [
        (1, 32, 32, 32),
        (2, 32, 64, 32),
        (5, 64, 32, 64),
        (1, 96, 96, 64),
        (9, 32, 64, 96),
        (1, 32, 160, 96),
        (1, 64, 96, 32),
        (3, 544, 32, 64),
        (32, 7, 64, 32),
        # More than a core keeps of either weight: in pieces.
        (1, 64, 416, 2048),
    ],
)
def test_a_feed_forward_layer_is_its_definition(batch, tokens, width, hidden):
    assert_as_near_as_autocast(FeedForward(batch, tokens, width, hidden))


@by_tiles
def test_gates_that_are_wide_open_or_shut():
    assert_as_near_as_autocast(FeedForward(1, 64, 32, 64, gate_scale=200.0))


@by_tiles
@pytest.mark.parametrize("rows", [(1, 32), (3, 96), (1, 288), (17, 32)])
@pytest.mark.parametrize("head_dim", [32, 96])
def test_gradients_of_weights_are_exact_to_float32(rows, head_dim):
    layer = Attention(*rows, head_dim)
    stream, added, norm, weight_in, weight_out, gain = layer.inputs
    turns_given = layer.rotations.cosines, layer.rotations.sines
    weights = norm, weight_in, gain, *turns_given, weight_out
    total, _, *kept = _attention(stream, added, *weights, HEADS)
    found = _attention_gradient(*layer.back, *weights, total, *kept, HEADS)
    mixed = kept[2].flatten(0, 1).double()
    assert error(found[5], layer.back[1].flatten(0, 1).double().T @ mixed) < EXACT


@by_tiles
@each_layer
def test_nothing_but_the_sum_hands_back_what_it_gets(make):
    layer = make()
    back, nothing = layer.back[0], torch.zeros_like(layer.back[1])
    _, _, by_stream, by_added, *others = with_gradients(
        layer.by_kernel, layer.inputs, back, nothing
    )
    assert torch.equal(by_stream, back)
    assert torch.equal(by_added, back.bfloat16())
    assert not any(each.any() for each in others)


@by_tiles
def test_attention_to_a_stream_that_nothing_is_added_to():
    layer = Attention(BATCH, 64, 32)
    stream, added, *weights = layer.inputs
    zeros = torch.zeros_like(added)
    expected = with_gradients(layer.by_kernel, [stream, zeros, *weights], *layer.back)
    found = with_gradients(
        lambda stream, *weights: layer.by_kernel(stream, None, *weights),
        [stream, *weights],
        *layer.back,
    )
    assert all(torch.equal(*pair) for pair in zip(found, expected[:3] + expected[4:], strict=True))


@by_tiles
@each_layer
def test_rows_near_zero_and_of_zeros(make):
    layer = make()
    stream, added, *weights = layer.inputs
    layer.inputs = [1e-4 * stream, (1e-4 * added.float()).bfloat16(), *weights]
    layer.inputs[0][:, ::2] = 0
    layer.inputs[1][:, ::2] = 0
    exact = [each.double() for each in layer.inputs]
    found = results(layer)
    assert off(found[1], layer.by_definition(*exact)[1]) < 0.02
    assert all(each.isfinite().all() for each in found)


@by_tiles
@each_layer
@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_does_not_depend_on_the_others(make, threads):
    layer, before = make(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = results(layer)
        stream, added, *weights = layer.inputs
        for image in range(BATCH):
            here = slice(image, image + 1)
            layer.inputs = [stream[here], added[here], *weights]
            alone = with_gradients(layer.by_kernel, layer.inputs, *(b[here] for b in layer.back))
            for one, other in zip(whole[:4], alone[:4], strict=True):
                assert torch.equal(one[here], other)
    finally:
        torch.set_num_threads(before)


@by_tiles
def test_images_have_turns_of_their_own():
    layer = Attention(BATCH, 64, 32, images=BATCH)
    _, whole = layer.by_kernel(*layer.inputs)
    stream, added, *weights = layer.inputs
    every = layer.rotations
    for image in range(BATCH):
        here = slice(image, image + 1)
        layer.rotations = Rotations(every.cosines[here], every.sines[here])
        assert torch.equal(whole[here], layer.by_kernel(stream[here], added[here], *weights)[1])


@by_tiles
@pytest.mark.parametrize("token", [1, 31, 32, 63])
def test_nobody_sees_the_future(token):
    layer = Attention(BATCH, 64, 32)
    stream, *others = layer.inputs
    before = layer.by_kernel(stream, *others)[1]
    changed = stream.clone()
    changed[:, token:] += 1
    after = layer.by_kernel(changed, *others)[1]
    assert torch.equal(before[:, :token], after[:, :token])
    assert not torch.equal(before[:, token:], after[:, token:])


@by_tiles
@pytest.mark.parametrize(("batch", "tokens"), [(17, 64), (2, 544), (96, 49)])
def test_layers_do_not_depend_on_threads(batch, tokens):
    layer = Attention(batch, tokens, 32)
    assert is_the_same_every_time(lambda: with_gradients_of_operators(layer))
    layer = FeedForward(batch, tokens, 96, 256)
    assert is_the_same_every_time(lambda: with_gradients_of_operators(layer))


def with_gradients_of_operators(layer):
    """In this thread: those of autograd may have another number of threads."""
    stream, added, norm, weight_in, weight_out, *gain = layer.inputs
    if isinstance(layer, FeedForward):
        weights = norm, weight_in, weight_out
        total, output, *kept = _feed_forward(stream, added, *weights)
        return output, *_feed_forward_gradient(*layer.back, *weights, total, *kept)
    turns_given = layer.rotations.cosines, layer.rotations.sines
    weights = norm, weight_in, *gain, *turns_given, weight_out
    total, output, *kept = _attention(stream, added, *weights, HEADS)
    return output, *_attention_gradient(*layer.back, *weights, total, *kept, HEADS)


@by_tiles
@each_layer
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda back: dense(back.mT).mT,
        lambda back: back[:1].expand(len(back), -1, -1),
        lambda back: back[:1, :1, :1].expand(back.shape),
        lambda back: back.repeat_interleave(2, dim=2)[:, :, ::2],
    ],
    ids=["turned", "one image", "one number", "every second"],
)
def test_what_is_given_and_what_comes_back_may_lie_anyhow(make, laid_out):
    layer = make()
    back = [laid_out(each) for each in layer.back]
    assert not any(each.is_contiguous() for each in back)
    views = [each if each.dim() == 1 else dense(each.mT).mT for each in layer.inputs]
    found = with_gradients(layer.by_kernel, views, *back)
    expected = with_gradients(layer.by_kernel, layer.inputs, *map(dense, back))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_outside_compiled_code_layers_are_computed_as_they_stand():
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_train_with_tiles(torch.zeros(2, 32, 64, requires_grad=True))


@by_tiles
def test_tiles_take_trainings_in_bfloat16_with_sizes_that_are_multiples_of_32():
    with as_if_compiled():
        for sizes in ((2, 32, 64), (32, 49, 64), (4, 8, 32)):
            assert can_train_with_tiles(torch.zeros(sizes))
        for stream in (
            torch.zeros(2, 33, 64),
            torch.zeros(2, 0, 64),
            torch.zeros(2, 32, 80),
            torch.zeros(2, 32, 64).bfloat16(),
            torch.zeros(2, 32, 64).double(),
            torch.zeros(2, 32, 64, device="meta"),
        ):
            assert not can_train_with_tiles(stream)
        for context in (
            torch.no_grad(),
            torch.autocast("cpu", torch.float16),
            torch.autocast("cpu", enabled=False),
        ):
            with context:
                assert not can_train_with_tiles(torch.zeros(2, 32, 64))


def test_attention_asks_for_queries_of_known_sizes_and_not_too_many_tokens():
    assert can_attend_with_tiles(torch.zeros(1, 1024, 64), 64)
    assert not can_attend_with_tiles(torch.zeros(1, 1056, 64), 64)
    for head_dim in (16, 48, 160):
        assert not can_attend_with_tiles(torch.zeros(1, 32, 64), head_dim)


def both_layers(block, stream, added, rotations):
    """Sum and output of either, and whether it is the kernel's."""
    after_attention, attended = block._attend(stream, added, rotations)
    total, output = block._feed_forward(after_attention, attended)
    kernels = ["_Attention" in str(attended.grad_fn), "_FeedForward" in str(output.grad_fn)]
    return kernels, (after_attention, attended, total, output)


@by_tiles
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_block_gives_the_same_with_tiles_and_without(dropout):
    torch.manual_seed(0)
    options = {**BLOCKS, "width": 64, "num_heads": 2, "attention_dropout": dropout}
    block = louder(Block(CausalTransformerOptions(**options)))
    stream, added, rotations = torch.randn(2, 32, 64), torch.randn(2, 32, 64), turns(1, 32, 32)
    for given in (added, None):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            without, expected = both_layers(block, stream, given, rotations)
        torch.manual_seed(0)
        with as_if_compiled():
            with_tiles, found = both_layers(block, stream, given, rotations)
        assert without == [False, False]
        assert with_tiles == [dropout == 0, True]
        for one, other in zip(found, expected, strict=True):
            assert off(one, other) < 0.03


@by_tiles
@pytest.mark.slow
@pytest.mark.parametrize(
    "law",
    ["blocks_of_any_size_are_those_of_pytorch", "a_prior_trains_as_one_that_is_not_compiled"],
)
def test_compiled(law, project):
    run_module(project, "tests.nn.kernels.tile_cases", law)
