"""The three sources of sigma, against torch.distributions and by search."""

import pytest
import torch
from torch.distributions import Normal

from tests.likelihoods.examples import IMAGE, build


def gaussian(sigma, value=0.3, decay=0.9):
    return build({"kind": "gaussian", "sigma": sigma, "value": value, "decay": decay})


def some_images(batch=5):
    return torch.rand(batch, *IMAGE) * 2 - 1


@pytest.mark.parametrize("sigma", ["fixed", "learned"])
def test_log_prob_is_torchs(sigma):
    images, means = some_images(), some_images()
    expected = Normal(means, 0.3).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gaussian(sigma).log_prob(images, means), expected)


def test_optimal_sigma_is_the_best_of_many():
    images, means = some_images(), some_images()
    best = gaussian("optimal").log_prob(images, means).mean()
    tried = torch.linspace(0.05, 3, 300)
    # Nearer than this, the sum in float32 rounds the difference away.
    tried = tried[(tried - (images - means).square().mean().sqrt()).abs() > 2e-3]
    others = [
        gaussian("fixed", value).log_prob(images, means).mean().item() for value in tried.tolist()
    ]
    assert best.item() >= max(others)
    assert best.item() == pytest.approx(max(others), abs=1e-2)


def test_gradient_through_optimal_sigma_would_change_nothing():
    images, means = some_images(), some_images().requires_grad_()
    gaussian("optimal").log_prob(images, means).mean().backward()
    through = means.detach().clone().requires_grad_()
    variance = (images - through).square().mean()
    (-0.5 * IMAGE.dims * variance.log()).backward()
    torch.testing.assert_close(means.grad, through.grad)


def test_optimal_uses_the_training_error_outside_training():
    likelihood = gaussian("optimal", value=1.0, decay=0.9)
    images = torch.zeros(5, *IMAGE)
    for _ in range(200):
        likelihood.log_prob(images, images + 0.2)
        likelihood.after_step()
    likelihood.eval()
    assert likelihood.sigma.item() == pytest.approx(0.2, rel=1e-4)
    before = likelihood.sigma.clone()
    expected = Normal(images + 0.5, 0.2).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(
        likelihood.log_prob(images, images + 0.5), expected, rtol=1e-4, atol=1e-3
    )
    assert torch.equal(likelihood.sigma, before)


def test_a_perfect_reconstruction_stays_finite():
    images = some_images()
    assert gaussian("optimal").log_prob(images, images).isfinite().all()


def test_learned_sigma_moves_towards_the_error():
    likelihood, images = gaussian("learned", value=1.0), torch.zeros(5, *IMAGE)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood.log_prob(images, images + 0.2).mean() / IMAGE.dims).backward()
        optimizer.step()
    assert likelihood.sigma.item() == pytest.approx(0.2, rel=0.02)
