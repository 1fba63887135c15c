"""Image i is the first of its own candidates that the judge likes, or the best."""

import numpy as np
import pytest
import torch

from stages.core.errors import ParamsError
from stages.sampling.draw import GROUP, Sampler, uniforms_of_images
from tests.sampling.test_draw import CPU, decode, options, prior

TRIES = 4


def opinion(pixels, labels):
    """Any number in (0, 1) that depends on each image and its class only."""
    mixed = (pixels.double().flatten(1) * torch.arange(1, 7)).sum(dim=1) * (1 + labels)
    return (mixed * 0.618034).frac().float()


def rejecting(**changes):
    asked = options(guidance=1.0, rejection_tries=TRIES, **changes)
    return Sampler(prior(), decode, asked, CPU, opinion=opinion)


@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_the_first_good_candidate_is_kept_or_the_best(threshold):
    sampler = rejecting(rejection_threshold=threshold)
    kept = sampler.draw(0, GROUP)
    plain = Sampler(prior(), decode, options(guidance=1.0), CPU)
    indices, labels = np.arange(GROUP), torch.from_numpy(np.arange(GROUP) % 3)
    latents, opinions = [], []
    for number in range(TRIES):
        uniforms = uniforms_of_images(3, indices, plain.prior.noise_shape, number)
        drawn = plain.prior.sample(labels, torch.from_numpy(uniforms), plain.options.settings)
        latents.append(drawn.numpy())
        opinions.append(opinion(decode(drawn, labels, indices), labels).numpy())
    opinions = np.stack(opinions)
    good = opinions >= threshold
    expected = np.where(good.any(axis=0), good.argmax(axis=0), opinions.argmax(axis=0))
    np.testing.assert_array_equal(kept.candidate, expected)
    np.testing.assert_array_equal(kept.judged, opinions[expected, indices])
    np.testing.assert_array_equal(kept.latents, np.stack(latents)[expected, indices])
    assert len(np.unique(kept.candidate)) > 1


def test_the_first_candidate_is_the_image_without_rejection():
    plain = Sampler(prior(), decode, options(guidance=1.0), CPU).draw(0, GROUP)
    kept = rejecting().draw(0, GROUP)
    first = kept.candidate == 0
    np.testing.assert_array_equal(kept.images[first], plain.images[first])
    assert np.isnan(plain.judged).all() and not plain.candidate.any()
    assert 0 < first.sum() < GROUP


def test_it_does_not_depend_on_the_batch():
    sampler = rejecting(rejection_threshold=0.8)
    whole, part = sampler.draw(0, GROUP + 9), sampler.draw(GROUP - 5, GROUP + 3)
    for name, values in vars(part).items():
        np.testing.assert_array_equal(values, vars(whole)[name][GROUP - 5 : GROUP + 3])


def test_without_classes_there_is_nothing_to_judge():
    asked = options(guidance=1.0, rejection_tries=2)
    with pytest.raises(ParamsError, match="rejection_tries: must be 1 without classes"):
        Sampler(prior(num_classes=0), decode, asked, CPU, opinion=opinion)
