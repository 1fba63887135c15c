"""How much of an image the first stage keeps: MSE, PSNR, SSIM on 8-bit pixels.

    MSE = mean((x - y)^2)                  x, y in [0, 1], after rounding to 8 bits
    PSNR = -10 log10(MSE)                  decibels, of the mean MSE over all images

    SSIM = mean of (2 m n + c1)(2 c + c2) / ((m^2 + n^2 + c1)(v + w + c2))

(Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
Eq. 13), where m, n are the means of both images, v, w their variances and c their covariance, all
under a Gaussian window of 11 x 11 pixels and sigma 1.5; c1 = 0.01^2, c2 = 0.03^2. The mean runs
over all positions at which the window lies inside the image, over channels and over images.

Differs: images smaller than the window get the largest odd window that fits, sigma shrunk in
proportion; the protocol says so. Where every pixel is right, MSE is 0 and PSNR infinite: reported
is the PSNR of one intensity of all wrong by one level, a finite bound from below.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Pixels
from stages.metrics.base import Figure, Metric, Observation, Protocol
from stages.metrics.intervals import NORMAL, mean_interval

__all__ = ["Reconstruction", "peak_signal_to_noise", "structural_similarity"]

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


class Reconstruction(Metric):
    """MSE, PSNR and SSIM of reconstructions."""

    title = "Reconstruction"

    def __init__(self) -> None:
        self.count = 0
        self.numbers = 0
        self.squares = 0.0
        self.similarity = 0.0
        self._of_images = {"mse": [0.0, 0.0], "ssim": [0.0, 0.0]}
        self.window = 0

    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        difference = seen.images.int() - seen.reconstructions.int()
        # Sums of whole numbers: exact whatever the order.
        self.squares += difference.square().sum(dtype=torch.int64).item() / 255.0**2
        similarity = structural_similarity(seen.images, seen.reconstructions)
        self.similarity += similarity.sum().item()
        errors = difference.double().square().mean(dim=(1, 2, 3)) / 255.0**2
        for name, values in (("mse", errors), ("ssim", similarity)):
            self._of_images[name][0] += values.sum().item()
            self._of_images[name][1] += values.square().sum().item()
        self.numbers += difference.numel()
        self.count += len(seen.images)
        self.window = window_size(*seen.images.shape[2:])

    def figures(self, protocol: Protocol) -> list[Figure]:
        """MSE, PSNR, SSIM."""
        n, mse = self.count, self.squares / self.numbers
        pixels = protocol.also(intensities="[0, 1] after rounding to 8 bits", interval=NORMAL)
        pooled = pixels.also(pooling="of the mean MSE over all images")
        windowed = pixels.also(
            window=f"Gaussian, {self.window} pixels, sigma {window_sigma(self.window):.3f}",
            positions="where the window lies inside the image",
        )
        ssim, psnr = self.similarity / n, peak_signal_to_noise(mse, self.numbers)
        of_mse = mean_interval(*self._of_images["mse"], n)
        of_ssim = mean_interval(*self._of_images["ssim"], n)
        of_psnr = None
        if of_mse is not None:
            high, low = (peak_signal_to_noise(end, self.numbers) for end in of_mse)
            of_psnr = low, high
        return [
            Figure("mse", mse, "squared intensity in [0, 1]", "lower", n, pixels, of_mse),
            Figure("psnr", psnr, "dB", "higher", n, pooled, of_psnr),
            Figure("ssim", ssim, "1", "higher", n, windowed, of_ssim),
        ]


def peak_signal_to_noise(mse: float, numbers: int) -> float:
    """PSNR in dB of a mean squared error over so many intensities in [0, 1]."""
    return -10.0 * math.log10(max(mse, 1.0 / (255.0**2 * numbers)))


def window_size(height: int, width: int) -> int:
    """Side of the SSIM window: 11, or the largest odd number that fits into the image."""
    side = min(height, width, WINDOW)
    return side if side % 2 else side - 1


def window_sigma(size: int) -> float:
    """Standard deviation of the SSIM window in pixels: 1.5 for 11, in proportion below."""
    return SIGMA * size / WINDOW


def structural_similarity(images: Pixels, reconstructions: Pixels) -> Float[Tensor, " batch"]:
    """SSIM of each pair, in float64; 1 if and only if they are equal."""
    size = window_size(*images.shape[2:])
    x, y = images.double() / 255.0, reconstructions.double() / 255.0
    m, n = _windowed_mean(x, size), _windowed_mean(y, size)
    v, w = _windowed_mean(x * x, size) - m * m, _windowed_mean(y * y, size) - n * n
    c = _windowed_mean(x * y, size) - m * n
    similarity = (2 * m * n + C1) * (2 * c + C2) / ((m * m + n * n + C1) * (v + w + C2))
    return similarity.mean(dim=(1, 2, 3))


def _windowed_mean(images: Tensor, size: int) -> Tensor:
    """Mean under the window wherever it fits; the window is a product of two lines."""
    offsets = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    line = torch.exp(-0.5 * (offsets / window_sigma(size)).square())
    line = (line / line.sum()).expand(images.shape[1], 1, -1)
    rows = F.conv2d(images, line[:, :, None, :], groups=images.shape[1])
    return F.conv2d(rows, line[:, :, :, None], groups=images.shape[1])
