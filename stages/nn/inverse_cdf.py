"""Draws that are functions of uniform numbers: the inverse distribution function.

    x = F^-1(u),  u ~ Uniform(0, 1)   =>   x ~ F

A draw is then settled by its own uniforms, one for an index and one for a normal number, and by
nothing else: not by the rows beside it, not by what was drawn before. Computed in float64, so that
an index changes only where u is within rounding of a step.
"""

import math

import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

__all__ = [
    "beta_from_uniform",
    "gamma_from_uniform",
    "index_from_uniform",
    "laplace_from_uniform",
    "normal_from_uniform",
    "truncated",
]

_NEAREST_TO_ZERO = 2.0**-25
"""Half the spacing of float32 uniforms: the normal number stays finite, about 5.4 at most."""


def _float64(values: Tensor) -> Tensor:
    # Apple's MPS has no float64; there the few numbers of a draw go through the CPU.
    return (values.cpu() if values.device.type == "mps" else values).double()


def index_from_uniform(
    logits: Float[Tensor, "batch num_indices"], uniforms: Float[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """One index per row with probability softmax(logits); logits of -inf are never drawn."""
    cumulative = torch.softmax(_float64(logits), dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    # The first that lies above; where none does, which is rounding, the last that can be drawn.
    drawn = torch.searchsorted(cumulative, _float64(uniforms).unsqueeze(1) * total, right=True)
    last_possible = torch.searchsorted(cumulative, total)
    return torch.minimum(drawn, last_possible).squeeze(1).to(logits.device)


def normal_from_uniform(uniforms: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard normal numbers, one per uniform number."""
    clamped = _float64(uniforms).clamp(_NEAREST_TO_ZERO, 1 - _NEAREST_TO_ZERO)
    return torch.special.ndtri(clamped).to(uniforms)


def laplace_from_uniform(uniforms: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Numbers of Laplace(0, 1), one per uniform number: -sign(v) log(1 - |v|), v = 2 u - 1."""
    centred = 2 * _float64(uniforms).clamp(_NEAREST_TO_ZERO, 1 - _NEAREST_TO_ZERO) - 1
    return (-centred.sign() * torch.log1p(-centred.abs())).to(uniforms)


def gamma_from_uniform(
    uniforms: Float[Tensor, "*shape"], concentration: float
) -> Float[Tensor, "*shape"]:
    """Numbers of Gamma(concentration, 1), one per uniform number."""
    numbers = special.gammaincinv(concentration, _float64(uniforms).cpu().numpy())
    smallest = torch.finfo(uniforms.dtype).tiny
    return torch.from_numpy(numbers).to(uniforms).clamp_min(smallest)


def beta_from_uniform(
    uniforms: Float[Tensor, "*shape"], towards_one: float, towards_zero: float
) -> Float[Tensor, "*shape"]:
    """Numbers of Beta(towards_one, towards_zero), one per uniform number, inside (0, 1)."""
    numbers = special.betaincinv(towards_one, towards_zero, _float64(uniforms).cpu().numpy())
    limits = torch.finfo(uniforms.dtype)
    return torch.from_numpy(numbers).to(uniforms).clamp(limits.tiny, 1 - limits.eps)


def truncated(
    logits: Float[Tensor, "batch num_indices"], top_k: int, top_p: float, min_p: float = 0.0
) -> Float[Tensor, "batch num_indices"]:
    """Logits with the improbable indices at -inf.

    Top-k keeps the k most probable (Fan et al. 2018, arXiv:1805.04833), ties with the k-th
    included; top-p keeps the smallest set of the most probable ones whose probability reaches p
    (Holtzman et al. 2020, arXiv:1904.09751); min-p keeps those at least min_p times as probable as
    the most probable one (Nguyen et al. 2024, arXiv:2407.01082). Top-p counts within the top k;
    min-p asks the same of an index whatever else was dropped.

    Args:
        logits: Unnormalised log-probabilities.
        top_k: How many to keep; 0: all.
        top_p: Probability to keep, in (0, 1]; 1: all.
        min_p: Least probability relative to the greatest, in [0, 1); 0: all.
    """
    if 0 < top_k < logits.shape[-1]:
        smallest_kept = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest_kept, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = torch.softmax(_float64(ordered), dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        dropped = (before >= top_p).to(logits.device)
        logits = logits.masked_fill(
            torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf
        )
    if min_p > 0:
        below_best = _float64(logits) - _float64(logits).amax(dim=-1, keepdim=True)
        improbable = (below_best < math.log(min_p)).to(logits.device)
        logits = logits.masked_fill(improbable, -torch.inf)
    return logits
