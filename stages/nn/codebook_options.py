"""What every learned codebook asks of params.yaml."""

from pydantic import Field

from stages.core.sections import Section
from stages.nn.code_gradient import CodeGradient

__all__ = ["CodebookOptions"]


class CodebookOptions(Section):
    """Parameters of learned codebooks: a part of the sections of several bottlenecks."""

    num_codes: int = Field(ge=2)
    """Entries of the codebook."""
    dim: int = Field(ge=1)
    """Numbers per entry."""
    commitment_weight: float = Field(ge=0)
    """Weight of the pull of vectors to their entries."""
    gradient: CodeGradient
    """How the decoder's gradient passes the choice: `straight_through` (as it is) or `rotation`
    (turned and scaled as the entry is against its vector)."""
    decay: float = Field(ge=0, lt=1)
    """Of the moving averages over steps: of each entry's use, and of the entries themselves where
    they are averages, which then lag 1 / (1 - decay) steps behind their vectors; 0.99 in the
    papers, less for a training of few steps."""
    revive_below: float = Field(ge=0, lt=1)
    """An entry used less than this share of uniform use is moved onto a recent vector; 0: never."""
    kmeans_iterations: int = Field(ge=0)
    """Passes of k-means at the start; 0: entries start on random vectors."""
    kmeans_vectors: int = Field(ge=1)
    """Vectors of the first, large batch that k-means looks at."""
