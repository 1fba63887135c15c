"""Past the choice of a code, which has no derivative.

The decoder gets an entry q in the place of the vector z. Which gradient z gets is a choice:

    straight_through    z + sg[q - z]                  dq/dz = I
    rotation            sg[(|q| / |z|) R] z            dq/dz = (|q| / |z|) R

R turns the direction of z onto that of q within the plane of both and leaves everything across it
alone: with the unit vectors u of z and v of q, and r that of u + v,

    R = I - 2 r r^T + 2 v u^T

Bengio et al. 2013 (arXiv:1308.3432); Fifty et al. 2024, section 4 (arXiv:2410.06424): vectors of
one cell are pushed together or apart according to where they lie in it, instead of all alike.

Differs: the value handed on is q to the last bit, and not q up to the rounding of the rotation, so
that what is trained is what `decode` gives; a vector without direction is passed straight through;
for opposite directions, where the plane is anyone's, R is the reflection I - 2 u u^T.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["CodeGradient", "replaced", "rotated", "straight_through"]

CodeGradient = Literal["straight_through", "rotation"]

# Vectors shorter than this have no direction: far below what a layer gives, far above rounding.
_TINY = 1e-6

Grid = Float[Tensor, "batch dim *cells"]


def replaced(latents: Grid, vectors: Grid, gradient: CodeGradient) -> Grid:
    """The value of `vectors`, with a gradient for `latents`."""
    return (rotated if gradient == "rotation" else straight_through)(latents, vectors)


def straight_through(
    latents: Float[Tensor, "*shape"], vectors: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The value of `vectors`, to the last bit, with the gradient of `latents` (Bengio 2013)."""
    return _StraightThrough.apply(latents, vectors)


class _StraightThrough(torch.autograd.Function):
    """No arithmetic either way: `latents + (vectors - latents).detach()` is two rounded passes."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, vectors: Tensor) -> Tensor:
        return vectors.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rotated(latents: Grid, vectors: Grid) -> Grid:
    """The value of `vectors`, as the rotation and scaling of `latents` that it is.

    Args:
        latents: z.
        vectors: q, of the same shape; the vectors lie along the second axis.
    """
    with torch.no_grad():
        length = torch.linalg.vector_norm(latents, dim=1, keepdim=True)
        scale = torch.linalg.vector_norm(vectors, dim=1, keepdim=True) / length.clamp_min(_TINY)
        start, end = _unit(latents), _unit(vectors)
        middle = _unit(start + end)
    turned = latents - 2 * middle * _along(latents, middle) + 2 * end * _along(latents, start)
    turned = torch.where(length > _TINY, scale * turned, latents)
    return vectors.detach() + (turned - turned.detach())


def _unit(vectors: Grid) -> Grid:
    return F.normalize(vectors, dim=1, eps=_TINY)


def _along(vectors: Grid, direction: Grid) -> Float[Tensor, "batch 1 *cells"]:
    return (vectors * direction).sum(dim=1, keepdim=True)
