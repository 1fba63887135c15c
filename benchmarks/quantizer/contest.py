"""Forward, backward and the codebook's step, for the same vectors and the same gradient.

Ours is the member `ema_vq` with the projections to and from `dim` numbers taken out, which the
peers do not have; its revival of codes out of use is in. Everyone gets the layout it works in, so
that nobody pays for turning vectors round: channels last for ours.

The ceiling is the least that a look-up without further thought costs: the product that gives all
distances, a chunk at a time, and one pass of argmin over them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.quantizer.peers import diffusers_step, pythae_step, vector_quantize_step
from benchmarks.side_by_side.contest import Contender, Contest
from benchmarks.side_by_side.peers import peer
from stages.bottlenecks.ema_vq import EMAVectorQuantizer, EMAVQOptions
from stages.core.shapes import FeatureShape

__all__ = ["GRID", "quantizer_contest"]

GRID = 16
"""Rows and columns of the grid of every image."""
_DISTANCES_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Of the ceiling: chunks of 4 MB, at which it was fastest; on a GPU 64 MB."""


def quantizer_contest(
    vectors: int, dim: int, codes: int, seed: int, device: torch.device
) -> Contest:
    """All quantizers at one size."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(vectors, dim, generator=generator).to(device)
    gradient = torch.randn(vectors, dim, generator=generator).to(device)
    work = "quantizer with moving averages, forward and backward"
    return Contest(
        work,
        f"{vectors} vectors of {dim}, {codes} codes",
        "vectors",
        (
            Contender("ours", "ours", our_step(flat, gradient, codes), vectors),
            Contender(
                "distance product + argmin", "ceiling", _lookup(flat, codes, generator), vectors
            ),
            peer(
                "vector-quantize-pytorch",
                "vector-quantize-pytorch",
                lambda: vector_quantize_step(flat, gradient, codes),
                vectors,
            ),
            peer("pythae", "pythae", lambda: pythae_step(flat, gradient, codes), vectors),
            peer(
                "diffusers (by gradient, no averages)",
                "diffusers",
                lambda: diffusers_step(flat, gradient, codes),
                vectors,
            ),
        ),
        device=device,
    )


def our_step(flat: Tensor, gradient: Tensor, codes: int) -> Callable[[], object]:
    """One training pass of `ema_vq`."""
    dim = flat.shape[1]
    options = EMAVQOptions(
        kind="ema_vq",
        num_codes=codes,
        dim=dim,
        commitment_weight=1.0,
        gradient="straight_through",
        decay=0.99,
        revive_below=0.01,
        kmeans_iterations=0,
        kmeans_vectors=1,
    )
    device = flat.device
    quantizer = EMAVectorQuantizer(options, FeatureShape(dim, GRID, GRID)).train().to(device)
    quantizer.project_in, quantizer.project_out = nn.Identity(), nn.Identity()
    features = _grid(flat).requires_grad_()
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        features.grad = None
        passed = quantizer(features)
        torch.autograd.backward(
            [passed.features, passed.auxiliary], [_grid(gradient), torch.ones((), device=device)]
        )
        quantizer.after_step(generator)

    return step


def _grid(flat: Tensor) -> Tensor:
    """(images, dim, rows, columns), channels last in memory."""
    return flat.view(-1, GRID, GRID, flat.shape[1]).permute(0, 3, 1, 2)


def _lookup(flat: Tensor, codes: int, generator: torch.Generator) -> Callable[[], object]:
    codebook = torch.randn(codes, flat.shape[1], generator=generator).to(flat)
    norms, turned = codebook.square().sum(dim=1), codebook.T
    rows = max(1, _DISTANCES_AT_ONCE[flat.device.type] // codes)

    def run() -> None:
        for chunk in flat.split(rows):
            torch.addmm(norms, chunk, turned, alpha=-2).argmin(dim=1)

    return run
