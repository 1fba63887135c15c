"""Autoencoders train for as long as they are told and are judged on what they rebuild."""

import numpy as np
import pytest
import torch

from benchmarks.autoencoder_step.reconstruction import CONTENDERS, Trained, _judged, train


@pytest.mark.parametrize("name", CONTENDERS)
def test_it_trains_and_rebuilds_the_test_images(name):
    if name.startswith("pythae"):
        pytest.importorskip("pythae")
    pixels = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8)
    found = train(CONTENDERS[name], pixels, pixels[:5], seconds=0.5, rate=1e-3, seed=0)
    assert found.steps >= 1
    assert found.rebuilt.shape == (5, 3, 32, 32) and found.rebuilt.dtype == np.uint8


def test_the_error_is_that_of_pixels_between_0_and_1():
    test = np.zeros((2, 3, 4, 5), np.uint8)
    found = _judged("a", Trained(7, np.stack([test[0] + 51, test[0] + 102])), test)
    assert found["mse"] == pytest.approx((0.2**2 + 0.4**2) / 2)
    assert found["psnr"] == pytest.approx(-10 * (np.log10(0.2**2) + np.log10(0.4**2)) / 2)
