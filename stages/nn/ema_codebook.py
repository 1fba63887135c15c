"""A codebook whose entries follow their vectors by moving averages: online k-means.

With n_k vectors choosing entry k in a step (van den Oord et al. 2017, appendix A.1):

    N_k <- decay N_k + (1 - decay) n_k
    m_k <- decay m_k + (1 - decay) sum of them

    e_k = m_k / N_k          or, on the unit sphere,   e_k = m_k / |m_k|

On the sphere the mean that maximises the summed cosines is the direction of the sum: the same
averages make spherical k-means (Dhillon & Modha 2001) an online algorithm, and N only counts use.

Differs: N_k in the quotient is smoothed as if every entry were seen a little more often (Laplace,
as in the authors' code); entries start by k-means, with N and m set to match; entries that fall out
of use move onto recent vectors, and their N and m with them, or the average would pull them
straight back.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.nn.codebook import (
    Counts,
    code_counts,
    kmeans_start,
    revival,
    sums_of_codes,
)
from stages.nn.codebook_options import CodebookOptions
from stages.nn.kernels.nearest import Codebook, Vectors
from stages.nn.processes import StepSums, from_first_process

__all__ = ["EMACodebook"]

# Vectors by which every N_k is raised in the quotient; the authors' value.
_SMOOTHING = 1e-5
# A sum shorter than this has been forgotten by the average; its entry stays where it is.
_FORGOTTEN = 1e-12


class EMACodebook(nn.Module):
    """Entries that are running means of the vectors that chose them; buffers, no parameters.

    Attributes:
        entries: The codebook, (num_codes, dim).
        cluster_size: N, the running number of vectors per step that choose each entry.
        vector_sums: m, the running sum of them.
    """

    entries: Float[Tensor, "codes dim"]
    cluster_size: Float[Tensor, " codes"]
    vector_sums: Float[Tensor, "codes dim"]

    def __init__(self, options: CodebookOptions, *, unit: bool) -> None:
        """Draw entries at random, until `place` or `start` puts them where the data are.

        Args:
            options: Size, decay, revival and start.
            unit: Whether entries, and the vectors that look them up, are of length 1.
        """
        super().__init__()
        self.options, self.unit = options, unit
        entries = torch.randn(options.num_codes, options.dim)
        self.register_buffer("entries", F.normalize(entries, dim=1) if unit else entries)
        self.register_buffer("cluster_size", torch.ones(options.num_codes))
        self.register_buffer("vector_sums", self.entries.clone())
        self._step = StepSums()
        self._piece_counts: Tensor | None = None
        self._recent: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def follow(
        self,
        vectors: Vectors,
        codes: Int[Tensor, "..."],
        distances: Float[Tensor, " vectors"],
    ) -> None:
        """Take note of vectors that the entries are to follow when the step is over.

        Args:
            vectors: Of one piece of the step.
            codes: What they chose, in the same order.
            distances: Their squared distances to what they chose.
        """
        counts = code_counts(codes, len(self.entries))
        sums = sums_of_codes(vectors, codes.flatten(), len(self.entries))
        self._step.add(counts, sums)
        self._piece_counts = counts
        # Of the first process this is the first piece of the step, whatever the others have.
        if self._recent is None:
            self._recent = vectors, distances

    @property
    def use(self) -> Float[Tensor, " codes"]:
        """N; while a piece passes, as it would be if the step had no other."""
        if self._piece_counts is None:
            return self.cluster_size
        counts = self._piece_counts.to(self.cluster_size.dtype)
        return self.cluster_size.lerp(counts, 1 - self.options.decay)

    @torch.no_grad()
    def end_step(self, generator: torch.Generator) -> None:
        """Let the entries follow the vectors of the step; move those out of use."""
        taken, recent = self._step.take(), self._recent
        self._piece_counts = self._recent = None
        if taken is None or recent is None:
            return
        counts, sums = taken
        pull = 1 - self.options.decay
        self.cluster_size.lerp_(counts.to(self.cluster_size.dtype), pull)
        self.vector_sums.lerp_(sums, pull)
        self.entries.copy_(self._directions() if self.unit else self._means())
        if self.options.revive_below:
            self._revive(*recent, generator)

    def _means(self) -> Codebook:
        total = self.cluster_size.sum()
        smoothed = (
            (self.cluster_size + _SMOOTHING) * total / (total + len(self.entries) * _SMOOTHING)
        )
        return self.vector_sums / smoothed[:, None]

    def _directions(self) -> Codebook:
        length = torch.linalg.vector_norm(self.vector_sums, dim=1, keepdim=True)
        return torch.where(length > _FORGOTTEN, self.vector_sums / length, self.entries)

    @torch.no_grad()
    def start(self, vectors: Vectors, generator: torch.Generator) -> None:
        """Entries become the k-means centres of these vectors."""
        self.place(*self.centres(vectors, self.options.num_codes, generator))

    def centres(
        self, vectors: Vectors, num_codes: int, generator: torch.Generator
    ) -> tuple[Codebook, Counts]:
        """So many k-means centres, as the options ask, and how many vectors each serves."""
        return kmeans_start(
            vectors,
            self.options.kmeans_vectors,
            num_codes,
            self.options.kmeans_iterations,
            generator,
            unit=self.unit,
        )

    @torch.no_grad()
    def place(self, entries: Codebook, counts: Counts) -> None:
        """Put the entries here, and N and m in agreement with them."""
        self.entries.copy_(from_first_process(entries))
        self.cluster_size.copy_(from_first_process(counts))
        self.vector_sums.copy_(self.entries * self.cluster_size[:, None])

    def _revive(
        self, recent: Vectors, distances: Float[Tensor, " vectors"], generator: torch.Generator
    ) -> None:
        """Move entries out of use, with their averages, onto vectors of the step's first piece."""
        uniform = self.cluster_size.mean()
        dead = self.cluster_size < self.options.revive_below * uniform
        moved, vectors = revival(dead, recent, distances, generator)
        # N of a uniformly used entry: time to be chosen before it is judged again.
        entries = torch.where(moved[:, None], from_first_process(vectors), self.entries)
        self.cluster_size.copy_(torch.where(moved, uniform, self.cluster_size))
        self.vector_sums.copy_(
            torch.where(moved[:, None], entries * self.cluster_size[:, None], self.vector_sums)
        )
        self.entries.copy_(entries)
