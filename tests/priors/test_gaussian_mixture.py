"""The fitted mixture: an exact density, fitted as expectation maximisation says."""

import itertools

import pytest
import torch
from sklearn.mixture import GaussianMixture

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.priors.gaussian_mixture import GaussianMixtureOptions, GaussianMixturePrior

SPEC = LatentSpec("continuous", 1, 2, channels=2)
MODEL = SamplerSettings()
OPTIONS = {
    "kind": "gaussian_mixture",
    "components": 3,
    "covariance": "full",
    "per_class": False,
    "covariance_floor": 1e-6,
    "kmeans_iterations": 5,
    "draws": 1,
    "max_passes": 30,
    "tolerance": 0.0,
}
every_form = pytest.mark.parametrize("covariance", ["full", "diagonal"])


def build(num_classes=2, **changes):
    options = GaussianMixtureOptions(**{**OPTIONS, **changes})
    return GaussianMixturePrior(
        options, CategoricalOptions(kind="categorical", tied=False), SPEC, num_classes
    )


def data(count=900):
    """Three clusters of different forms; class 1 is the last of them."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 4, generator=draw)
    part = torch.arange(count) % 3
    mixing = torch.randn(3, 4, 4, generator=draw)
    means = 4 * torch.randn(3, 4, generator=draw)
    vectors = means[part] + torch.einsum("nij,nj->ni", mixing[part], noise)
    return vectors.view(count, 2, 1, 2), (part == 2).long()


def fitted(prior, latents, labels, passes=8, size=350):
    """The prior after some passes, and its nats per image before each."""
    prior.start_from_data(latents, labels, torch.Generator().manual_seed(1))
    starts = range(0, len(latents), size)
    nats = [
        prior.fit_pass((latents[s : s + size], labels[s : s + size]) for s in starts)
        for _ in range(passes)
    ]
    return prior, nats


@every_form
def test_every_pass_raises_the_likelihood(covariance):
    latents, labels = data()
    prior, nats = fitted(build(covariance=covariance, components=4), latents, labels, passes=12)
    nats.append(-prior.log_prob(latents, None).mean().item())
    assert all(after <= before + 1e-4 for before, after in itertools.pairwise(nats))
    assert nats[-1] < nats[0]


@every_form
def test_passes_in_pieces_are_those_of_scikit_learn(covariance):
    latents, labels = data()
    prior, _ = fitted(build(covariance=covariance), latents, labels, passes=0)
    parts = prior.mixtures
    forms = parts.factors[0].double()
    precisions = torch.linalg.inv(forms @ forms.mT) if covariance == "full" else 1 / forms.square()
    reference = GaussianMixture(
        3,
        covariance_type="full" if covariance == "full" else "diag",
        reg_covar=1e-6,
        max_iter=5,
        tol=0.0,
        weights_init=parts.log_weights[0].double().softmax(0).numpy(),
        means_init=parts.means[0].double().numpy(),
        precisions_init=precisions.numpy(),
    )
    vectors = latents.flatten(1).double().numpy()
    with pytest.warns(Warning, match="did not converge"):
        reference.fit(vectors)
    for _ in range(5):
        prior.fit_pass([(latents, labels)])
    expected = torch.from_numpy(reference.score_samples(vectors)).float()
    torch.testing.assert_close(prior.log_prob(latents, None), expected, rtol=1e-3, atol=1e-3)


def test_one_component_of_each_class_is_its_mean_and_covariance():
    latents, labels = data()
    prior, _ = fitted(build(components=1, per_class=True), latents, labels, passes=1)
    for label in (0, 1):
        own = latents[labels == label].flatten(1)
        torch.testing.assert_close(
            prior.mixtures.means[label, 0], own.mean(0), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(prior.log_frequencies.exp(), torch.tensor([2 / 3, 1 / 3]))


@torch.no_grad()
def test_without_a_class_it_is_the_mixture_of_all_classes():
    latents, labels = data()
    prior, _ = fitted(build(per_class=True), latents, labels)
    given = torch.stack([prior.log_prob(latents, torch.full_like(labels, c)) for c in (0, 1)], 1)
    expected = (given + prior.log_frequencies).logsumexp(dim=1)
    torch.testing.assert_close(prior.log_prob(latents, None), expected)
    mixed = prior.log_prob(latents, labels)
    torch.testing.assert_close(mixed, given.gather(1, labels[:, None])[:, 0])


@every_form
@pytest.mark.parametrize("label", [0, 1, None])
@torch.no_grad()
def test_draws_are_of_the_density_and_of_their_class(covariance, label):
    """The mean over draws of q(z) / p(z) is 1 for any density q; here q is p, moved."""
    latents, labels = data()
    prior, _ = fitted(build(covariance=covariance, per_class=True), latents, labels)
    count = 20_000
    asked = None if label is None else torch.full((count,), label)
    uniforms = torch.rand(count, *prior.noise_shape, generator=torch.Generator().manual_seed(2))
    drawn = prior.sample(asked, uniforms, MODEL)
    nats = prior.log_prob(drawn, asked)
    shifted = prior.log_prob(drawn + 0.1, asked)
    ratio = (shifted - nats).exp()
    # Five standard errors of the mean.
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / count**0.5
    if label is not None:
        away = prior.log_prob(drawn, torch.full((count,), 1 - label))
        assert nats.mean() > away.mean() + 1


@torch.no_grad()
def test_a_draw_is_a_function_of_its_own_numbers_and_settings_narrow_it():
    latents, labels = data()
    prior, _ = fitted(build(per_class=True), latents, labels)
    uniforms = torch.rand(6, *prior.noise_shape)
    asked = torch.tensor([0, 1, 1, 0, 1, 0])
    whole, order = prior.sample(asked, uniforms, MODEL), torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(prior.sample(asked[order], uniforms[order], MODEL), whole[order])
    best = prior.mixtures.log_weights[asked].argmax(dim=1)
    for one in ({"temperature": 1e-4}, {"top_k": 1}, {"min_p": 0.999}):
        cold = SamplerSettings(variance_temperature=1e-4, **one)
        torch.testing.assert_close(
            prior.sample(asked, uniforms, cold).flatten(1),
            prior.mixtures.means[asked, best],
            rtol=1e-2,
            atol=1e-2,
        )


def test_a_class_that_is_never_seen_still_has_a_density():
    latents, _ = data()
    prior, _ = fitted(build(num_classes=3, per_class=True), latents, torch.zeros(900).long())
    assert prior.log_prob(latents, torch.full((900,), 2)).isfinite().all()
    assert prior.log_frequencies.isfinite().all()


def test_guidance_is_refused():
    prior = build()
    with pytest.raises(ParamsError, match=r"sampling\.guidance: must be 1 .* got 2.0"):
        prior.sample(None, torch.rand(2, *prior.noise_shape), SamplerSettings(guidance=2.0))
