"""Whether a codebook is used: share of codes that occur, entropy, perplexity.

    p_k = share of code k among all codes of the split
    entropy = -sum_k p_k log2 p_k          bits per code
    perplexity = 2^entropy                 the number of equally frequent codes it amounts to

K for a uniform histogram, 1 when a single code is used. Where several codebooks stand behind a row
of codes, each has a histogram: usage is the share of all their codes, entropy their mean. A split
with few images can not use a large codebook up: the protocol says how many codes were counted.
"""

import math

from jaxtyping import Int
from torch import Tensor

from stages.metrics.base import Figure, Metric, Observation, Protocol
from stages.nn.code_grids import GridShapes
from stages.nn.codebook import code_usage, counts_per_codebook, no_counts, perplexity

__all__ = ["CodeUsage"]


class CodeUsage(Metric):
    """Usage, entropy and perplexity of codes.

    Attributes:
        counts: How often each code of each codebook occurred.
    """

    title = "Codes"

    counts: Int[Tensor, "codebooks num_codes"]

    def __init__(self, num_codes: int, codebook_parts: GridShapes = ()) -> None:
        """Nothing counted yet.

        Args:
            num_codes: Of each codebook.
            codebook_parts: Shapes of the grids of a row that have a codebook each; (): there is
                one codebook.
        """
        self.num_codes, self.parts = num_codes, codebook_parts
        self.counts = no_counts(num_codes, codebook_parts)
        self.images = 0

    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        assert seen.codes is not None, "code usage is for autoencoders that store codes"
        self.counts += counts_per_codebook(seen.codes.cpu(), self.num_codes, self.parts)
        self.images += len(seen.codes)

    def figures(self, protocol: Protocol) -> list[Figure]:
        """Usage, entropy, perplexity."""
        amounts_to = perplexity(self.counts).item()
        entropy = math.log2(amounts_to)
        used = code_usage(self.counts).item()
        how = protocol.also(num_codes=self.num_codes, counted=int(self.counts.sum()))
        if self.parts:
            how = how.also(codebooks=len(self.parts))
        return [
            Figure("code_usage", used, "share of the codebook", "higher", self.images, how),
            Figure("code_entropy", entropy, "bits per code", "higher", self.images, how),
            Figure("code_perplexity", amounts_to, "codes", "higher", self.images, how),
        ]
