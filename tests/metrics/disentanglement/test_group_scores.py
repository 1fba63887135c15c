"""The FactorVAE and the beta-VAE score of representations whose scores are known."""

import math

import numpy as np
import pytest

from stages.core.randomness import numpy_stream
from stages.metrics.disentanglement import beta_vae, factor_vae
from stages.metrics.disentanglement.beta_vae import beta_vae_score
from stages.metrics.disentanglement.factor_vae import factor_vae_score
from stages.metrics.disentanglement.groups import images_sharing
from stages.metrics.disentanglement.representation import represent
from tests.metrics.disentanglement.constructed import (
    copied,
    entangled,
    factorial,
    perfect,
    perfect_latents,
    permuted_and_scaled,
    rotated,
    unrelated,
)

SCORES = [factor_vae_score, beta_vae_score]
# Four standard errors of an accuracy near one half over 5,000 draws.
ERROR = 4 * math.sqrt(0.25 / 5000)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beta_vae, "PAIRS", 24)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("make", [perfect, copied])
def test_factors_with_latents_of_their_own_are_all_told(score, make) -> None:
    found = score(make(), seed=0)
    assert found.score == 1
    np.testing.assert_array_equal(found.per_factor, 1)


@pytest.mark.parametrize("score", SCORES)
def test_two_factors_rotated_by_45_degrees_can_not_be_told_apart(score) -> None:
    assert score(rotated(noise=1e-3), seed=0).score == pytest.approx(0.5, abs=ERROR)


@pytest.mark.parametrize("score", SCORES)
def test_latents_that_know_nothing_score_chance(score) -> None:
    # Many images: of few, every value would have a mean and a spread of its own by chance.
    found = score(unrelated(repeats=500), seed=0)
    assert found.score == pytest.approx(1 / 3, abs=ERROR + 0.02)


@pytest.mark.parametrize("score", SCORES)
def test_without_active_latents_only_chance_is_left(score) -> None:
    factors = factorial()
    found = score(represent(0.01 * perfect_latents(factors), factors), seed=0)
    assert found.score == pytest.approx(1 / 3)
    np.testing.assert_allclose(found.per_factor, 1 / 3)


@pytest.mark.parametrize("score", SCORES)
def test_order_scale_and_origin_of_latents_do_not_matter(score) -> None:
    plain, changed = score(entangled(), seed=0), score(permuted_and_scaled(entangled()), seed=0)
    assert 0.35 < plain.score < 0.99
    # The same groups are drawn; only rounding, and where the classifier's fit stops, differ.
    assert changed.score == pytest.approx(plain.score, abs=0.005)


@pytest.mark.parametrize("score", SCORES)
def test_the_seed_decides(score) -> None:
    one, again, other = (score(entangled(), seed) for seed in (0, 0, 1))
    assert one.score == again.score != other.score


def test_a_collapsed_latent_gets_no_vote() -> None:
    factors = factorial()
    latents = perfect_latents(factors)
    latents[:, 2] = 0.01 * (factors[:, 1] == 0)
    found = factor_vae_score(represent(latents, factors), seed=0)
    assert found.score == 1


def test_a_factor_without_a_latent_is_what_is_missing() -> None:
    factors = factorial()
    latents = perfect_latents(factors)
    latents[:, 3] = np.random.default_rng(0).standard_normal(len(factors))
    votes, pairs = (
        score(represent(latents, factors), seed=0) for score in (factor_vae_score, beta_vae_score)
    )
    # Groups that share factor 2 keep none of the three latents still: the votes that fall on the
    # noise, the only latent nobody else votes for, are named rightly.
    assert votes.per_factor[:2].min() == 1
    assert 0.2 < votes.per_factor[2] < 0.5
    # A linear classifier tells it by the absence of the other two.
    assert pairs.score > 0.95


def test_votes_are_those_of_the_definition() -> None:
    representation = entangled()
    scaled = representation.latents / representation.latents.std(axis=0)
    found, fixed = factor_vae._votes(representation, scaled, numpy_stream(4, "factor_vae"))
    rows = images_sharing(representation, fixed, 64, numpy_stream(4, "factor_vae"))
    for vote in range(0, len(rows), 97):
        group = representation.latents[rows[vote]]
        relative = [np.var(group[:, d]) / np.var(representation.latents[:, d]) for d in range(5)]
        assert found[vote] == np.argmin(relative)


def test_points_are_those_of_the_definition() -> None:
    representation = entangled()
    latents = representation.latents
    found, labels = beta_vae._points(representation, latents, numpy_stream(4, "beta_vae"))
    pairs = images_sharing(representation, np.repeat(labels, 24), 2, numpy_stream(4, "beta_vae"))
    for point in range(0, len(labels), 97):
        mine = pairs[24 * point : 24 * (point + 1)]
        expected = sum(abs(latents[a] - latents[b]) for a, b in mine) / 24
        np.testing.assert_allclose(found[point], expected)
        assert (np.ptp(representation.factors[mine, labels[point]], axis=1) == 0).all()


@pytest.mark.parametrize("module", [factor_vae, beta_vae])
def test_how_much_is_gathered_at_once_does_not_matter(module, monkeypatch) -> None:
    score = factor_vae_score if module is factor_vae else beta_vae_score
    whole = score(entangled(), seed=0)
    monkeypatch.setattr(module, "_NUMBERS", 100_001)
    np.testing.assert_array_equal(score(entangled(), seed=0).per_factor, whole.per_factor)
