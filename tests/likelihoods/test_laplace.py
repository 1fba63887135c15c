"""The three sources of the scale, against torch.distributions and by search."""

import pytest
import torch
from torch.distributions import Laplace

from tests.likelihoods.examples import IMAGE, build


def laplace(scale, value=0.3, decay=0.9):
    return build({"kind": "laplace", "scale": scale, "value": value, "decay": decay})


def some_images(batch=5):
    return torch.rand(batch, *IMAGE) * 2 - 1


@pytest.mark.parametrize("scale", ["fixed", "learned"])
def test_log_prob_is_torchs(scale):
    images, locations = some_images(), some_images()
    expected = Laplace(locations, 0.3).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(laplace(scale).log_prob(images, locations), expected)


def test_optimal_scale_is_the_best_of_many():
    images, locations = some_images(), some_images()
    best = laplace("optimal").log_prob(images, locations).mean()
    tried = torch.linspace(0.05, 3, 300)
    # Nearer than this, the sum in float32 rounds the difference away.
    tried = tried[(tried - (images - locations).abs().mean()).abs() > 2e-3]
    others = [
        laplace("fixed", value).log_prob(images, locations).mean().item()
        for value in tried.tolist()
    ]
    assert best.item() >= max(others)
    assert best.item() == pytest.approx(max(others), abs=1e-2)


def test_gradient_through_optimal_scale_would_change_nothing():
    images, locations = some_images(), some_images().requires_grad_()
    laplace("optimal").log_prob(images, locations).mean().backward()
    through = locations.detach().clone().requires_grad_()
    (-IMAGE.dims * (images - through).abs().mean().log()).backward()
    torch.testing.assert_close(locations.grad, through.grad)


def test_optimal_uses_the_training_error_outside_training():
    likelihood = laplace("optimal", value=1.0, decay=0.9)
    images = torch.zeros(5, *IMAGE)
    for _ in range(200):
        likelihood.log_prob(images, images + 0.2)
        likelihood.after_step()
    likelihood.eval()
    before = likelihood.scale.clone()
    assert before.item() == pytest.approx(0.2, rel=1e-4)
    expected = Laplace(images + 0.5, 0.2).log_prob(images).sum(dim=(1, 2, 3))
    found = likelihood.log_prob(images, images + 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(likelihood.scale, before)


def test_a_perfect_reconstruction_stays_finite():
    images = some_images()
    assert laplace("optimal").log_prob(images, images).isfinite().all()


def test_learned_scale_moves_towards_the_error():
    likelihood, images = laplace("learned", value=1.0), torch.zeros(5, *IMAGE)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood.log_prob(images, images + 0.2).mean() / IMAGE.dims).backward()
        optimizer.step()
    assert likelihood.scale.item() == pytest.approx(0.2, rel=0.02)


def test_draws_follow_the_distribution_function():
    locations = torch.full((1, *IMAGE), 0.1).expand(5000, -1, -1, -1)
    draws = laplace("fixed", 0.05).sample(locations, torch.Generator().manual_seed(0)).flatten()
    for bound in (-0.05, 0.05, 0.1, 0.12, 0.3):
        expected = Laplace(0.1, 0.05).cdf(torch.tensor(bound)).item()
        error = (expected * (1 - expected) / len(draws)) ** 0.5
        # Five standard errors of a share of 120 000 draws.
        assert abs((draws < bound).float().mean().item() - expected) < 5 * error
