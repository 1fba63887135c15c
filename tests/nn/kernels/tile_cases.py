"""What tests of the kernels for tile registers share, and what must hold of them in compiled code:
`python -m tests.nn.kernels.tile_cases NAME` tries one law."""

import contextlib
import copy
import math
import sys
from collections import Counter
from unittest import mock

import torch

from benchmarks.side_by_side.prior_model import PriorSize, make_prior
from stages.nn.kernels import norm_kernels, tile_attention, tile_products
from stages.nn.transformer import GatedFeedForward
from tests.nn.loud_weights import louder

__all__ = [
    "LAWS",
    "as_if_compiled",
    "dense",
    "drawn",
    "error",
    "is_the_same_every_time",
    "with_gradients",
]


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

    with contextlib.ExitStack() as stack:
        for file in (norm_kernels, tile_attention, tile_products):
            stack.enter_context(mock.patch.object(file, "_call", counting(file._call)))
        yield called


def layers_of_any_size_are_those_of_pytorch():
    """Rows and widths that are no multiples of 32 go another way."""
    torch.manual_seed(0)
    linear, gated = {"linear_gradient"}, {"feed_forward", "feed_forward_gradient"}
    for layer, width, kernels in (
        (tile_products.Linear(64, 96), 64, linear),
        (tile_products.Linear(24, 40), 24, set()),
        (GatedFeedForward(32), 32, gated),
        (GatedFeedForward(24), 24, set()),
    ):
        exact, compiled = copy.deepcopy(layer).double(), torch.compile(layer)
        # Compiled for one number of rows, then for others.
        for rows in ((2, 32), (3, 11), (3, 32), (2, 20)):
            inputs, back = drawn(*rows, width).float(), drawn(*rows, width)
            with kernels_called() as called, torch.autocast("cpu", torch.bfloat16):
                found = outputs_and_gradients(compiled, layer, inputs, back)
            assert set(called) == (kernels if math.prod(rows) % 32 == 0 else set()), (rows, called)
            expected = outputs_and_gradients(exact, exact, inputs.double(), back.double())
            for one, other in zip(found, expected, strict=True):
                assert error(one, other) < 0.015, rows


def outputs_and_gradients(forward, layer, inputs, back):
    inputs.requires_grad_()
    output = forward(inputs)
    # Of another width than the input.
    back = back.repeat(1, 1, 2)[..., : output.shape[-1]]
    return output, *torch.autograd.grad(output, [inputs, *layer.parameters()], back)


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
    # In two layers; the first norm has nothing to add, the last one is not of a layer.
    assert called == {
        "add_and_norm": 3,
        "add_and_norm_gradient": 3,
        "compare": 2,
        "compare_gradient": 2,
        "attention": 2,
        "attention_gradient": 2,
        "linear_gradient": 4,
        "feed_forward": 2,
        "feed_forward_gradient": 2,
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
        layers_of_any_size_are_those_of_pytorch,
        a_prior_trains_as_one_that_is_not_compiled,
    )
}

if __name__ == "__main__":
    LAWS[sys.argv[1]]()
