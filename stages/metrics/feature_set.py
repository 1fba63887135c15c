"""Features of one set of images in one network."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

__all__ = ["FeatureSet"]


@dataclass(frozen=True)
class FeatureSet:
    """Features of one set of images in one network, memory-mapped."""

    features: Float32[np.ndarray, "images dim"]
    logits: Float32[np.ndarray, "images classes"] | None
    labels: Int64[np.ndarray, " images"] | None
    images: str
    """What images they are, for protocols."""

    def __len__(self) -> int:
        return len(self.features)
