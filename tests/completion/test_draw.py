"""Resampled completions against enumeration; completion k whatever their number."""

import numpy as np
import pytest
import torch

from stages.completion.draw import Completer
from stages.heads.base import SamplerSettings
from stages.nn.completion import KnownLatents
from tests.priors.test_completion import LATENTS, PREFIX, SUFFIX, build, conditional, numbered

KIND = "transformer"


def complete(mask, count, candidates, image=7):
    prior = build(KIND)
    known = KnownLatents(LATENTS.view(1, 2, 3), torch.tensor(mask).bool().view(1, 2, 3))
    return Completer(prior, SamplerSettings(), candidates, seed=5).complete(known, 1, image, count)


def test_resampled_completions_follow_the_conditional_distribution(monkeypatch):
    monkeypatch.setattr("stages.completion.draw.GROUP", 1000)
    count, candidates = 300, 32
    found = complete(SUFFIX[KIND], count, candidates)
    expected = conditional(build(KIND), SUFFIX[KIND])
    counts = torch.bincount(numbered(found.latents), minlength=len(expected))
    # Four and a half standard errors of a share, and the bias of resampling from K, which is at
    # most of order E[w^2] / E[w]^2 / K, one over the effective number.
    error = 4.5 * (expected * (1 - expected) / count).sqrt()
    bias = 1 / found.effective_candidates.mean()
    assert not found.exact and bias < 0.1
    assert ((counts / count - expected).abs() <= error + bias).all()
    assert (counts[expected == 0] == 0).all()
    # One candidate ignores what is known and comes later: the test would see the difference.
    ignoring = complete(SUFFIX[KIND], count, 1)
    away = torch.bincount(numbered(ignoring.latents), minlength=len(expected)) / count - expected
    assert (away.abs() > error + bias).any()


def test_a_prefix_needs_one_candidate():
    found, few = complete(PREFIX[KIND], 70, 50), complete(PREFIX[KIND], 70, 2)
    assert found.exact and torch.equal(found.latents, few.latents)
    np.testing.assert_array_equal(found.effective_candidates, np.ones(70))


@pytest.mark.parametrize("mask", [PREFIX[KIND], SUFFIX[KIND]])
def test_a_completion_does_not_depend_on_how_many_there_are(mask):
    many, few = complete(mask, 30, 9), complete(mask, 4, 9)
    assert torch.equal(many.latents[:4], few.latents)
    np.testing.assert_array_equal(many.effective_candidates[:4], few.effective_candidates)
    assert not torch.equal(complete(mask, 30, 9, image=8).latents, many.latents)
