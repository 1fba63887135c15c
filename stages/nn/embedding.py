"""Vectors by their numbers, with a gradient that is added in one order.

    y_i = w_(n_i),    dL/dw_k = sum over i with n_i = k of dL/dy_i

`torch.compile` lets several threads of a CPU add this gradient at once, as they come: a compiled
training then had other bits every time. PyTorch's own kernel gives each row to one thread; compiled
code calls it here as an operator.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stages.nn.kernels.operators import operator

__all__ = ["Embedding", "embedding"]


class Embedding(nn.Embedding):
    """`torch.nn.Embedding`, looked up by `embedding`."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width)

    def forward(self, input: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """The vector of every number."""
        return embedding(input, self.weight)


def embedding(
    numbers: Int[Tensor, "*shape"], vectors: Float[Tensor, "count width"]
) -> Float[Tensor, "*shape width"]:
    """The vector of every number."""
    if torch.compiler.is_compiling() and vectors.device.type == "cpu":
        return _Lookup.apply(vectors, numbers)
    return F.embedding(numbers, vectors)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.count = len(vectors)
        return F.embedding(numbers, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return _gradient_of_vectors(gradient, numbers, ctx.count), None


_gradient_of_vectors = operator(
    "embedding_gradient(Tensor gradient, Tensor numbers, int count) -> Tensor",
    lambda gradient, numbers, count: gradient.new_empty(count, gradient.shape[-1]),
    CPU=lambda gradient, numbers, count: torch.ops.aten.embedding_dense_backward(
        gradient, numbers, count, -1, False
    ),
)
