"""What every codebook needs: codes of grids, a start from data, and counts of use.

    perplexity = exp(-sum over k of p_k log p_k),   usage = share of codes with p_k > 0

Codes are those of the nearest entries (stages/nn/kernels/nearest.py); between vectors of length 1
the nearest is the one of largest cosine: ||v - e||^2 = 2 - 2 <v, e>.

Start by k-means (Lancucki et al. 2020 show what a random start costs); for vectors of length 1,
centres are brought back to length 1 (Dhillon & Modha 2001). Dead codes: a code that no vector
chooses gets no gradient and stays dead; it is moved onto a vector the encoder gave lately (Jukebox,
Dhariwal et al. 2020, "random restarts"), and rather onto one that is served badly.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.core.shapes import Codes
from stages.nn.code_grids import GridShapes, grids_of_row
from stages.nn.embedding import embedding
from stages.nn.kernels.nearest import Codebook, Vectors, nearest
from stages.nn.kernels.operators import operator

__all__ = [
    "Counts",
    "code_counts",
    "code_figures",
    "code_usage",
    "counts_per_codebook",
    "flat_vectors",
    "kmeans",
    "kmeans_start",
    "nearest_codes",
    "no_counts",
    "perplexity",
    "revival",
    "sums_of_codes",
    "vectors_of",
]

Counts = Float[Tensor, "*codebooks codes"] | Int[Tensor, "*codebooks codes"]


def flat_vectors(
    latents: Float[Tensor, "batch dim grid_height grid_width"],
) -> Vectors:
    """The vectors of all cells of all images, in raster order."""
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def nearest_codes(
    latents: Float[Tensor, "batch dim grid_height grid_width"], codebook: Codebook
) -> tuple[Codes, Float[Tensor, " vectors"]]:
    """`nearest` on a grid: the code of each cell, and the squared distances in raster order."""
    batch, _, rows, columns = latents.shape
    codes, distances = nearest(flat_vectors(latents), codebook)
    return codes.view(batch, rows, columns), distances


def vectors_of(
    codes: Codes, codebook: Codebook
) -> Float[Tensor, "batch dim grid_height grid_width"]:
    """The entry of each cell's code."""
    return embedding(codes, codebook).permute(0, 3, 1, 2)


def code_counts(codes: Int[Tensor, "..."], num_codes: int) -> Int[Tensor, " codes"]:
    """How often each code occurs."""
    codes = codes.flatten()
    if codes.device.type == "cpu":
        return _counted(codes, num_codes)
    # Looking for the largest, `bincount` would wait for an accelerator.
    return codes.new_zeros(num_codes).index_add_(0, codes, torch.ones_like(codes))


def counts_per_codebook(
    codes: Codes, num_codes: int, parts: GridShapes = ()
) -> Int[Tensor, "codebooks codes"]:
    """How often each code of each codebook occurs: equal numbers of two codebooks are two codes.

    Args:
        codes: Grids, or rows of several grids end to end.
        num_codes: Of each codebook.
        parts: Shapes of the grids of a row that have a codebook each; (): all codes are of one.
    """
    grids = grids_of_row(codes, parts) if parts else [codes]
    return torch.stack([code_counts(grid, num_codes) for grid in grids])


def no_counts(num_codes: int, parts: GridShapes = ()) -> Int[Tensor, "codebooks codes"]:
    """What `counts_per_codebook` adds up from."""
    return torch.zeros(max(len(parts), 1), num_codes, dtype=torch.int64)


def sums_of_codes(
    vectors: Vectors, codes: Int[Tensor, " vectors"], num_codes: int
) -> Float[Tensor, "codes dim"]:
    """The sum of the vectors of each code."""
    summed = _summed if vectors.device.type == "cpu" else _summed_as_it_stands
    return summed(vectors, codes, num_codes)


def _summed_as_it_stands(vectors: Tensor, codes: Tensor, num_codes: int) -> Tensor:
    return vectors.new_zeros(num_codes, vectors.shape[1]).index_add_(0, codes, vectors)


# On a CPU compiled code would be cut in two by `bincount`, whose result is as long as numbers say,
# and would let threads add vectors as they come.
_counted = operator(
    "code_counts(Tensor codes, int num_codes) -> Tensor",
    lambda codes, num_codes: codes.new_empty(num_codes),
    CPU=lambda codes, num_codes: torch.bincount(codes, minlength=num_codes),
)
_summed = operator(
    "sums_of_codes(Tensor vectors, Tensor codes, int num_codes) -> Tensor",
    lambda vectors, codes, num_codes: vectors.new_empty(num_codes, vectors.shape[1]),
    CPU=_summed_as_it_stands,
)


def perplexity(counts: Counts) -> Float[Tensor, ""]:
    """exp(entropy) of the codes' frequencies: 1 for one code only, num_codes for equal use.

    Of several codebooks exp(mean entropy). Counts of whole splits are taken in float64; running
    averages as they are.
    """
    weights = counts if counts.is_floating_point() else counts.double()
    shares = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.exp(torch.special.entr(shares).sum(dim=-1).mean())


def code_usage(counts: Counts) -> Float[Tensor, ""]:
    """Share of the codes, of all codebooks, that occur at all, in [0, 1]."""
    return (counts > 0).double().mean()


def code_figures(counts: Counts) -> dict[str, float]:
    """`code_usage` in [0, 1] and `code_perplexity` in [1, num_codes]; nothing for no codes."""
    if counts.sum() == 0:
        return {}
    return {
        "code_usage": code_usage(counts).item(),
        "code_perplexity": perplexity(counts).item(),
    }


@torch.no_grad()
def kmeans(
    vectors: Vectors,
    num_codes: int,
    iterations: int,
    generator: torch.Generator,
    *,
    unit: bool = False,
) -> tuple[Codebook, Int[Tensor, " codes"]]:
    """Lloyd's algorithm from random vectors; an empty cluster moves to the worst-served vector.

    Args:
        vectors: Data; if fewer than `num_codes`, some entries coincide.
        num_codes: Entries wanted.
        iterations: Passes over the data.
        generator: Chooses the first entries.
        unit: Whether vectors are of length 1, and centres shall be.

    Returns:
        Entries, and how many vectors are nearest to each.
    """
    vectors = vectors.float()
    order = torch.randperm(len(vectors), generator=generator, device=generator.device)
    starts = order.to(vectors.device)
    codebook = vectors[starts.repeat(-(-num_codes // len(starts)))[:num_codes]]
    for _ in range(iterations):
        codes, distances = nearest(vectors, codebook)
        counts = code_counts(codes, num_codes)
        sums = sums_of_codes(vectors, codes, num_codes)
        means = F.normalize(sums, dim=1) if unit else sums / counts.clamp_min(1)[:, None]
        codebook = torch.where(counts[:, None] > 0, means, codebook)
        empty = (counts == 0).nonzero().flatten()[: len(vectors)]
        codebook[empty] = vectors[distances.topk(len(empty)).indices]
    return codebook, code_counts(nearest(vectors, codebook)[0], num_codes)


@torch.no_grad()
def kmeans_start(
    vectors: Vectors,
    limit: int,
    num_codes: int,
    iterations: int,
    generator: torch.Generator,
    *,
    unit: bool = False,
) -> tuple[Codebook, Int[Tensor, " codes"]]:
    """`kmeans` of at most `limit` of the vectors, drawn by the generator."""
    order = torch.randperm(len(vectors), generator=generator, device=generator.device)
    sample = vectors[order[:limit].to(vectors.device)]
    return kmeans(sample, num_codes, iterations, generator, unit=unit)


def revival(
    dead: Bool[Tensor, " codes"],
    vectors: Vectors,
    distances: Float[Tensor, " vectors"],
    generator: torch.Generator,
) -> tuple[Bool[Tensor, " codes"], Codebook]:
    """A different recent vector for each dead code, as far as there are vectors.

    A vector is drawn with a probability proportional to its squared distance (as the starts of
    k-means++, Arthur & Vassilvitskii 2007): one that is served well already, such as the
    thousandth copy of a plain background, would make another dead code.

    Args:
        dead: Codes to move.
        vectors: What the encoder gave lately.
        distances: Their squared distances to their codes.
        generator: Chooses among them.

    Returns:
        The codes that get a vector, and one vector per code (meaningless for the others).
    """
    uniform = torch.rand(len(vectors), generator=generator, device=generator.device)
    # The k first of independent exponential arrivals are k draws without replacement.
    arrival = -torch.log(uniform.to(vectors.device)) / distances.clamp_min(1e-12)
    chosen = arrival.topk(min(len(dead), len(vectors)), largest=False).indices
    # Masks and not lists of indices: a list would make an accelerator wait at every step.
    turn = dead.cumsum(0) - 1
    moved = dead & (turn < len(chosen))
    return moved, vectors[chosen[turn.clamp(0, len(chosen) - 1)]]
