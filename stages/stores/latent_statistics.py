"""What is measured on the latents of a whole split: their scale, or how codes are used.

With draws z ~ q(z given x), every row and every number of it counted alike,

    scale = 1 / std(z),    Var(z) = E[mean^2] - E[mean]^2 + E[variance]

so that scaled latents have unit variance whatever the autoencoder (Rombach et al. 2022,
arXiv:2112.10752, "Details on Autoencoder Models").

Differs: there the standard deviation is that of the draws of one batch; here the moments of the
whole training split are exact, and the posterior's own variance is part of them.

Of codes: a histogram of the split for each codebook, and their usage and perplexity
(stages/nn/codebook.py).
"""

import math

import numpy as np
import torch

from stages.core.errors import ArtifactError
from stages.nn import codebook
from stages.nn.code_grids import GridShapes
from stages.stores.latent_pieces import LatentPieces

__all__ = ["code_figures", "latent_scale"]


def latent_scale(pieces: LatentPieces) -> float:
    """1 / std of draws from the posteriors of a split, summed in float64 piece by piece.

    Raises:
        ArtifactError: If the latents do not vary at all.
    """
    count, total, squares, variances = 0, 0.0, 0.0, 0.0
    for piece in range(len(pieces)):
        rows = pieces.read_piece(piece)
        mean = rows["mean"].astype(np.float64)
        count += mean.size
        total += float(mean.sum())
        squares += float(np.square(mean).sum())
        if "log_variance" in rows:
            variances += float(np.exp(rows["log_variance"].astype(np.float64)).sum())
    variance = (squares + variances) / count - (total / count) ** 2 if count else 0.0
    if not variance > 0:
        raise ArtifactError(
            "latents of the training split do not vary (std 0), so there is nothing to model: the "
            "autoencoder has collapsed; train it longer or with less weight on the rate"
        )
    return 1 / math.sqrt(variance)


def code_figures(
    pieces: LatentPieces, num_codes: int, codebook_parts: GridShapes = ()
) -> dict[str, float]:
    """`code_usage` in [0, 1] and `code_perplexity` in [1, num_codes]; nothing for no rows.

    Args:
        pieces: The split.
        num_codes: Of each codebook.
        codebook_parts: Shapes of the grids of a row that have a codebook each; (): there is one.
    """
    counts = codebook.no_counts(num_codes, codebook_parts)
    for piece in range(len(pieces)):
        rows = torch.from_numpy(pieces.read_piece(piece)["codes"].astype(np.int64))
        counts += codebook.counts_per_codebook(rows.unsqueeze(1), num_codes, codebook_parts)
    return codebook.code_figures(counts)
