"""Binary images: probabilities, binarisation, means."""

import torch
from torch.distributions import Bernoulli

from tests.likelihoods.examples import IMAGE, build


def bernoulli(binarise):
    return build({"kind": "bernoulli", "binarise": binarise})


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_log_prob_is_torchs():
    logits = torch.randn(5, *IMAGE)
    images = torch.randn(5, *IMAGE).sign()
    expected = Bernoulli(logits=logits).log_prob((images + 1) / 2).sum(dim=(1, 2, 3))
    torch.testing.assert_close(bernoulli("threshold").log_prob(images, logits), expected)


def test_the_mean_is_that_of_minus_one_and_one():
    logits = torch.randn(5, *IMAGE)
    expected = 2 * torch.sigmoid(logits) - 1
    torch.testing.assert_close(bernoulli("threshold").mean(logits), expected)


def test_threshold_is_at_the_middle_grey():
    images = torch.tensor([-1.0, -0.004, 0.004, 1.0]).view(4, 1, 1, 1).expand(4, *IMAGE)
    target = bernoulli("threshold").target(images, stream())
    assert target[:, 0, 0, 0].tolist() == [-1, -1, 1, 1]


def test_dynamic_targets_are_white_as_often_as_they_are_light():
    images = torch.full((20_000, *IMAGE), 0.2)
    target = bernoulli("dynamic").target(images, stream())
    assert set(target.unique().tolist()) == {-1.0, 1.0}
    # A share of 480 000 draws with probability 0.6: standard error 0.0007.
    assert abs((target == 1).float().mean().item() - 0.6) < 5 * 0.00071


def test_dynamic_without_a_stream_is_the_threshold():
    images = torch.rand(5, *IMAGE) * 2 - 1
    expected = bernoulli("threshold").target(images, None)
    assert torch.equal(bernoulli("dynamic").target(images, None), expected)


def test_images_binarised_once_pass_through_as_they_are():
    images = torch.rand(5, *IMAGE) * 2 - 1
    once = bernoulli("dynamic").eval().target(images, stream(1))
    assert torch.equal(bernoulli("dynamic").target(once, stream(2)), once)
    assert torch.equal(bernoulli("dynamic").target(once, None), once)
    assert not torch.equal(bernoulli("dynamic").target(images, stream(2)), once)
