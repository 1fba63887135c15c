"""How different reconstructions look from their images: LPIPS (stages/nn/lpips.py) of 8-bit pixels.

    lpips_squeeze = mean over images of d(x, y)

Zhang et al. 2018 (arXiv:1801.03924). The name says the network; a figure of AlexNet's or VGG's
features is another one. It depends on the size at which the network sees the images, so that the
protocol carries the resizing, and the sha256 of both files of weights.
"""

import torch

from stages.core.intensities import from_pixels
from stages.metrics.base import Figure, Metric, Observation, Protocol
from stages.nn.lpips import LPIPS, SQUEEZENET, resize_rule

__all__ = ["PerceptualSimilarity"]

# Pairs shown to the network at once: it works on far more maps than an image has channels.
_AT_ONCE = 32


class PerceptualSimilarity(Metric):
    """LPIPS of reconstructions."""

    title = "Perceptual similarity"

    def __init__(self, network: LPIPS) -> None:
        """Judge by a network as `open_lpips` gives it, on any device."""
        self.network = network
        self.count = 0
        self.distance = 0.0
        self.resize = "none"

    @torch.inference_mode()
    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        device = self.network.mean.device
        pairs = zip(seen.images.split(_AT_ONCE), seen.reconstructions.split(_AT_ONCE), strict=True)
        for images, others in pairs:
            distances = self.network(from_pixels(images.to(device)), from_pixels(others.to(device)))
            self.distance += distances.double().sum().item()
        self.count += len(seen.images)
        self.resize = resize_rule(*seen.images.shape[2:])

    def figures(self, protocol: Protocol) -> list[Figure]:
        """The mean distance."""
        how = protocol.also(
            extractor="SqueezeNet 1.1, LPIPS v0.1",
            extractor_sha256=self.network.checksums.get(SQUEEZENET),
            weights=dict(self.network.checksums),
            resize=self.resize,
            antialias=None if self.resize == "none" else False,
        )
        mean = self.distance / self.count
        return [Figure("lpips_squeeze", mean, "1", "lower", self.count, how)]
