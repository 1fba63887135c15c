"""An embedding whose gradient compiled code does not take apart."""

import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from stages.nn import embedding as file
from stages.nn.embedding import Embedding, embedding


def test_looks_up_with_the_gradient_of_pytorch(monkeypatch):
    torch.manual_seed(0)
    vectors = torch.randn(7, 5, requires_grad=True)
    numbers = torch.randint(7, (3, 4))
    expected = F.embedding(numbers, vectors)
    (wanted,) = torch.autograd.grad(expected.square().sum(), vectors)
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda told=compiling: told)
        found = embedding(numbers, vectors)
        assert torch.equal(found, expected)
        (gradient,) = torch.autograd.grad(found.square().sum(), vectors)
        assert torch.equal(gradient, wanted)
    double = vectors.detach().double().requires_grad_()
    assert gradcheck(lambda v: file._Lookup.apply(v, numbers), double)


def test_a_module_starts_as_pytorchs():
    torch.manual_seed(0)
    ours = Embedding(7, 5)
    torch.manual_seed(0)
    assert torch.equal(ours.weight, torch.nn.Embedding(7, 5).weight)
    assert torch.equal(ours(torch.tensor([2])), ours.weight[2:3])
