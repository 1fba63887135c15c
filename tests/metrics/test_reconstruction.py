import math

import pytest
import torch

from stages.metrics.base import Observation
from stages.metrics.reconstruction import (
    Reconstruction,
    peak_signal_to_noise,
    structural_similarity,
    window_sigma,
    window_size,
)
from tests.metrics.examples import PROTOCOL

random = torch.Generator().manual_seed(0)


def pixels(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)


def values(*batches: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    metric = Reconstruction()
    for images, reconstructions in batches:
        nothing = torch.zeros(len(images))
        metric.update(Observation(images, reconstructions, nothing, nothing))
    return {figure.name: figure.value for figure in metric.figures(PROTOCOL)}


def test_a_constant_error_has_known_mse_and_psnr() -> None:
    images = torch.full((3, 2, 12, 13), 100, dtype=torch.uint8)
    found = values((images, images + 51))
    assert found["mse"] == pytest.approx(0.04)
    assert found["psnr"] == pytest.approx(-10 * math.log10(0.04))


def test_perfect_reconstructions_have_no_error_and_a_finite_psnr() -> None:
    images = pixels(2, 3, 12, 14)
    found = values((images, images))
    assert found["mse"] == 0 and found["ssim"] == pytest.approx(1)
    nearly = images.clone()
    nearly[0, 0, 0, 0] ^= 1
    assert found["psnr"] == pytest.approx(values((images, nearly))["psnr"])


def test_ssim_of_constant_images_is_its_luminance_term() -> None:
    dark = torch.full((1, 1, 16, 17), 51, dtype=torch.uint8)
    light = torch.full((1, 1, 16, 17), 204, dtype=torch.uint8)
    expected = (2 * 0.2 * 0.8 + 0.01**2) / (0.2**2 + 0.8**2 + 0.01**2)
    assert structural_similarity(dark, light).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("side", "window"), [(28, 11), (11, 11), (10, 9), (8, 7), (4, 3), (2, 1)])
def test_the_window_fits_small_images(side: int, window: int) -> None:
    assert window_size(side, 40) == window
    images = pixels(2, 1, side, side + 1)
    assert structural_similarity(images, images).tolist() == pytest.approx([1, 1])


def test_ssim_agrees_with_its_definition() -> None:
    images, others = pixels(1, 1, 8, 9), pixels(1, 1, 8, 9)
    size = window_size(8, 9)
    offsets = torch.arange(size).double() - size // 2
    line = torch.exp(-0.5 * (offsets / window_sigma(size)) ** 2)
    window = torch.outer(line, line) / line.sum() ** 2
    x, y = images[0, 0].double() / 255, others[0, 0].double() / 255
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for row in range(8 - size + 1):
        for column in range(9 - size + 1):
            a, b = (p[row : row + size, column : column + size] for p in (x, y))
            m, n = (window * a).sum(), (window * b).sum()
            v, w = (window * (a - m) ** 2).sum(), (window * (b - n) ** 2).sum()
            c = (window * (a - m) * (b - n)).sum()
            found.append((2 * m * n + c1) * (2 * c + c2) / ((m * m + n * n + c1) * (v + w + c2)))
    expected = torch.stack(found).mean().item()
    assert structural_similarity(images, others).item() == pytest.approx(expected, abs=1e-12)


def test_batches_do_not_matter() -> None:
    images, others = pixels(5, 1, 9, 8), pixels(5, 1, 9, 8)
    whole = values((images, others))
    parts = values((images[:2], others[:2]), (images[2:], others[2:]))
    assert parts == pytest.approx(whole, rel=1e-12)
    assert whole["psnr"] == pytest.approx(peak_signal_to_noise(whole["mse"], 360))
