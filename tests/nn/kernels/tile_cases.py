"""What tests of the kernels for tile registers share, and what must hold of them in compiled code:
`python -m tests.nn.kernels.tile_cases NAME` tries one law."""

import contextlib
import copy
import sys
from collections import Counter
from unittest import mock

import pytest
import torch

from benchmarks.side_by_side.prior_model import PriorSize, make_prior
from stages.nn.kernels import tile_cross_entropy, tile_layers
from stages.nn.transformer import Block
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.kernels.emulation import tiles_of_some_kind
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS

__all__ = [
    "LAWS",
    "as_if_compiled",
    "by_tiles",
    "dense",
    "drawn",
    "error",
    "is_the_same_every_time",
    "off",
    "with_gradients",
]


by_tiles = pytest.mark.usefixtures("_tiles")
"""Of a test: tile registers are there, emulated where the machine has none."""


@contextlib.contextmanager
def as_if_compiled():
    """In a training in bfloat16 that believes it is being compiled."""
    told = mock.patch.object(torch.compiler, "is_compiling", lambda: True)
    with told, torch.autocast("cpu", torch.bfloat16):
        yield


def drawn(*shape, dtype=torch.bfloat16, scale=1.0):
    """Normal numbers that bfloat16 has."""
    return (scale * torch.randn(shape)).bfloat16().to(dtype)


def dense(tensor):
    """A copy, row by row."""
    return tensor.clone(memory_format=torch.contiguous_format)


def error(found, expected):
    """The largest difference over the largest number."""
    assert found.shape == expected.shape
    expected = expected.double()
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def off(found, expected):
    """Root mean square of the difference over that of the numbers."""
    assert found.shape == expected.shape
    expected = expected.double()
    return ((found.double() - expected).norm() / expected.norm()).item()


def with_gradients(function, inputs, *back):
    """What a function gives and, of what comes back of that, the gradients of its inputs."""
    leaves = [each.detach().requires_grad_() for each in inputs]
    found = function(*leaves)
    found = found if isinstance(found, tuple) else (found,)
    return *(each.detach() for each in found), *torch.autograd.grad(found, leaves, back)


def is_the_same_every_time(compute):
    """Whether a tuple of tensors has the same bits with one thread, with two and once more."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(compute())
    finally:
        torch.set_num_threads(before)
    first, *others = found
    return all(torch.equal(*pair) for other in others for pair in zip(first, other, strict=True))


@contextlib.contextmanager
def kernels_called():
    """How often each function of the kernels was called."""
    called = Counter()

    def counting(call):
        def counted(name, *arguments, **options):
            called[name] += 1
            call(name, *arguments, **options)

        return counted

    with contextlib.ExitStack() as patches:
        for file in (tile_layers, tile_cross_entropy):
            patches.enter_context(mock.patch.object(file, "_call", counting(file._call)))
        yield called


def blocks_of_any_size_are_those_of_pytorch():
    """Tokens and widths that are no multiples of 32 go another way."""
    torch.manual_seed(0)
    for width, all_tokens in ((64, (32, 33, 64, 16, 96, 20)), (24, (32,))):
        options = {**BLOCKS, "width": width, "num_heads": 2}
        block = louder(Block(CausalTransformerOptions(**options)))
        exact, compiled = copy.deepcopy(block).double(), torch.compile(block)
        # Compiled for one number of tokens, then for others.
        for tokens in all_tokens:
            inputs = [drawn(2, tokens, width).float() for _ in range(2)]
            back = [drawn(2, tokens, width).float() for _ in range(2)]
            with kernels_called() as called, torch.autocast("cpu", torch.bfloat16):
                found = outputs_and_gradients(compiled, block, inputs, back)
            assert bool(called) == (width == 64 and 2 * tokens % 32 == 0), (tokens, called)
            doubles = [[each.double() for each in some] for some in (inputs, back)]
            expected = outputs_and_gradients(exact, exact, *doubles)
            for one, other in zip(found, expected, strict=True):
                assert error(one, other) < 0.03, tokens


def outputs_and_gradients(forward, block, inputs, back):
    leaves = [each.detach().requires_grad_() for each in inputs]
    outputs = forward(*leaves)
    back = [one.to(other.dtype) for one, other in zip(back, outputs, strict=True)]
    return *outputs, *torch.autograd.grad(outputs, [*leaves, *block.parameters()], back)


def a_prior_trains_as_one_that_is_not_compiled():
    """In bfloat16 its gradients are as near to those in float32, or nearer."""
    prior = louder(make_prior(PriorSize(2, 64, 64, heads=2), 0))
    prior.label_dropout = 0.0
    codes, labels = torch.randint(512, (4, 4, 16)), torch.arange(4)

    def loss_and_gradients(forward, precise):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss = forward(codes, labels)
        return loss, *torch.autograd.grad(loss, list(prior.parameters()))

    wanted = loss_and_gradients(prior, precise=True)
    as_it_stands = loss_and_gradients(prior, precise=False)
    with kernels_called() as called:
        found = loss_and_gradients(torch.compile(prior), precise=False)
    assert called == {
        "attention_layer": 2,
        "attention_layer_gradient": 2,
        "feed_forward_layer": 2,
        "feed_forward_layer_gradient": 2,
        "cross_entropy": 1,
        "cross_entropy_gradient": 1,
    }
    assert abs(found[0] - wanted[0]) < 1e-3 * wanted[0]
    names = [name for name, _ in prior.named_parameters()]
    for name, *three in zip(names, found[1:], as_it_stands[1:], wanted[1:], strict=True):
        one, other, exact = three
        allowed = 1.25 * (other - exact).norm()
        assert allowed < 0.05 * exact.norm(), name
        assert (one - exact).norm() < allowed, name


LAWS = {
    law.__name__: law
    for law in (
        blocks_of_any_size_are_those_of_pytorch,
        a_prior_trains_as_one_that_is_not_compiled,
    )
}

if __name__ == "__main__":
    with tiles_of_some_kind():
        LAWS[sys.argv[1]]()
