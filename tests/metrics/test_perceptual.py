import pytest
import torch

from stages.core.intensities import from_pixels
from stages.metrics.base import Observation
from stages.metrics.perceptual import PerceptualSimilarity
from tests.metrics.examples import PROTOCOL
from tests.nn.lpips_files import random_lpips


def pixels(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 20, 24), generator=draw, dtype=torch.uint8)


def figure(network, *batches):
    metric = PerceptualSimilarity(network)
    for images, others in batches:
        nothing = torch.zeros(len(images))
        metric.update(Observation(images, others, nothing, nothing))
    [found] = metric.figures(PROTOCOL)
    return found


def test_it_is_the_mean_distance_however_the_split_is_cut(monkeypatch):
    monkeypatch.setattr("stages.metrics.perceptual._AT_ONCE", 2)
    network, images, others = random_lpips(), pixels(5, 0), pixels(5, 1)
    expected = network(from_pixels(images), from_pixels(others)).double().mean().item()
    whole = figure(network, (images, others))
    assert whole.value == pytest.approx(expected, rel=1e-5)
    parts = figure(network, (images[:3], others[:3]), (images[3:], others[3:]))
    assert parts.value == pytest.approx(whole.value, rel=1e-5)
    assert parts.n == whole.n == 5


def test_perfect_reconstructions_are_at_no_distance():
    assert figure(random_lpips(), (pixels(2, 0), pixels(2, 0))).value == 0


def test_the_protocol_says_with_what_and_at_which_size():
    network = random_lpips()
    network.checksums = {"squeeze.pth": "abc"}
    found = figure(network, (pixels(2, 0), pixels(2, 1)))
    assert (found.name, found.direction) == ("lpips_squeeze", "lower")
    assert found.protocol.details["weights"] == {"squeeze.pth": "abc"}
    assert found.protocol.resize == "bilinear, 20x24 to 64x77 (shorter side 64)"
    assert found.protocol.antialias is False and found.protocol.reference_n == 17
