"""Whether a codebook is used: share of codes that occur, entropy, perplexity.

    p_k = share of code k among all codes of the split
    entropy = -sum_k p_k log2 p_k          bits per code
    perplexity = 2^entropy                 the number of equally frequent codes it amounts to

K for a uniform histogram, 1 when a single code is used. A split with few images can not use a
large codebook up: the protocol says how many codes were counted.
"""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from stages.metrics.base import Figure, Metric, Observation, Protocol
from stages.nn.codebook import code_counts, code_usage, perplexity

__all__ = ["CodeUsage"]


class CodeUsage(Metric):
    """Usage, entropy and perplexity of codes.

    Attributes:
        counts: How often each code occurred.
    """

    title = "Codes"

    counts: Int[Tensor, " num_codes"]

    def __init__(self, num_codes: int) -> None:
        self.counts = torch.zeros(num_codes, dtype=torch.int64)
        self.images = 0

    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        assert seen.codes is not None, "code usage is for autoencoders that store codes"
        self.counts += code_counts(seen.codes.cpu(), len(self.counts))
        self.images += len(seen.codes)

    def figures(self, protocol: Protocol) -> list[Figure]:
        """Usage, entropy, perplexity."""
        amounts_to = perplexity(self.counts).item()
        entropy = math.log2(amounts_to)
        used = code_usage(self.counts).item()
        how = protocol.also(num_codes=len(self.counts), counted=int(self.counts.sum()))
        return [
            Figure("code_usage", used, "share of the codebook", "higher", self.images, how),
            Figure("code_entropy", entropy, "bits per code", "higher", self.images, how),
            Figure("code_perplexity", amounts_to, "codes", "higher", self.images, how),
        ]
