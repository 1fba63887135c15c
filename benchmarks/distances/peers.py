"""The same figures from others: torchmetrics and scipy, given the same features.

torchmetrics looks at images through a network; here the network hands its input through, so what
is compared is arithmetic alone.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import sqrtm
from torch import Tensor, nn

from stages.files.torchvision_import import import_torchvision

# Before torchmetrics, which imports torchvision by itself.
import_torchvision()
from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.inception import InceptionScore  # noqa: E402
from torchmetrics.image.kid import KernelInceptionDistance  # noqa: E402

__all__ = [
    "general_root_trace",
    "product_root_trace",
    "torchmetrics_frechet",
    "torchmetrics_kernel",
    "torchmetrics_score",
]

Features = Float[Tensor, "images dim"]


class _HandedThrough(nn.Module):
    """The features themselves, as if a network had made them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: Features) -> Features:
        return features


def torchmetrics_frechet(samples: Features, reference: Features, batch: int) -> float:
    """Squared Frechet distance; float64 inside, as it always is there, given float64 features."""
    metric = FrechetInceptionDistance(feature=_HandedThrough(samples.shape[1]))
    for real, features in ((True, reference), (False, samples)):
        for part in features.split(batch):
            metric.update(part.double(), real=real)
    return metric.compute().item()


def torchmetrics_kernel(samples: Features, reference: Features, subsets: int, size: int) -> float:
    """Mean kernel distance of random subsets; of all images where size is their number."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(
            feature=_HandedThrough(samples.shape[1]), subsets=subsets, subset_size=size
        )
    metric.update(reference, real=True)
    metric.update(samples, real=False)
    return metric.compute()[0].item()


def torchmetrics_score(logits: Float[Tensor, "images classes"]) -> float:
    """Inception score of all images at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save")
        metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(logits)
    with warnings.catch_warnings():
        # Of one split there is no standard deviation.
        warnings.filterwarnings("ignore", message="std\\(\\): degrees of freedom")
        return metric.compute()[0].item()


def product_root_trace(first: Float[Tensor, "dim dim"], second: Float[Tensor, "dim dim"]) -> float:
    """Trace of the root as torchmetrics takes it: eigenvalues of the product, not symmetric."""
    return torch.linalg.eigvals(first @ second).sqrt().real.sum().item()


def general_root_trace(first: Float[Tensor, "dim dim"], second: Float[Tensor, "dim dim"]) -> float:
    """Trace of scipy's root of the product, as the first implementations of FID took it."""
    return float(np.trace(sqrtm((first @ second).numpy())).real)
