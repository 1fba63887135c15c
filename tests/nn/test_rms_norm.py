"""The norm with a borrowed gradient equals PyTorch's, and says so where it cannot go further."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.rms_norm import RMSNorm, rms_norm

WIDTH = 12


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 7), (2, 3, 2, 4)])
def test_numbers_and_gradients_are_those_of_pytorch(shape, weighted):
    torch.manual_seed(0)
    # A mean far from zero: a layer norm would take it away.
    x = (3 + torch.randn(*shape, WIDTH)).requires_grad_()
    weight = torch.randn(WIDTH, requires_grad=True) if weighted else None
    found, expected = rms_norm(x, weight), F.rms_norm(x, (WIDTH,), weight)
    torch.testing.assert_close(found, expected)
    inputs = [x] if weight is None else [x, weight]
    gradient = 1 + torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(expected, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_slices_and_other_dtypes():
    x = torch.randn(4, 2, WIDTH)[:, 1]
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (WIDTH,)))
    half = x.bfloat16()
    assert torch.equal(rms_norm(half), F.rms_norm(half, (WIDTH,)))


def test_a_row_of_zeros_stays_one_and_has_a_finite_gradient():
    x = torch.zeros(1, WIDTH, requires_grad=True)
    normed = RMSNorm(WIDTH)(x)
    normed.sum().backward()
    assert not normed.any() and x.grad.isfinite().all()


def test_its_gradient_has_none():
    x = torch.randn(2, WIDTH, requires_grad=True)
    (gradient,) = torch.autograd.grad(rms_norm(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
