"""Its KL, densities and paths agree with each other and with plain Monte Carlo."""

import math

import pytest
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.errors import ParamsError
from stages.core.sections import parse_params
from stages.core.shapes import FeatureShape, ImageShape
from tests.backbones.examples import conv
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 8, 12)
HIERARCHY = {
    "kind": "hierarchical_vae",
    "grids": [1, 2, 4],
    "groups": [2, 1, 2],
    "widths": [10, 8, 6],
    "blocks": 1,
    "posterior": "residual",
}
GAUSSIAN = {"kind": "gaussian", "layout": "spatial", "channels": 3}
BROAD = {"kind": "gaussian", "sigma": "fixed", "value": 1.0, "decay": 0.9}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def build(bottleneck=GAUSSIAN, likelihood=BROAD, shaken=True, **changes):
    sections = {
        "autoencoder": HIERARCHY | changes,
        "backbone": conv([8], 0),
        "bottleneck": bottleneck,
        "likelihood": likelihood,
        "objective": ELBO,
    }
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    torch.manual_seed(0)
    autoencoder = build_first_stage(params, IMAGE)
    for parameter in autoencoder.parameters():
        if shaken and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return autoencoder.eval()


def some_images(batch=4):
    return torch.tanh(torch.randn(batch, *IMAGE, generator=stream(9)))


def standard_error(values):
    return values.std() / math.sqrt(len(values))


def test_one_kl_group_per_group_of_latents_coarse_to_fine():
    autoencoder = build()
    assert autoencoder.kl_groups == {
        "level_00_1x2": 6,
        "level_01_1x2": 6,
        "level_02_2x3": 18,
        "level_03_4x6": 72,
        "level_04_4x6": 72,
    }
    spec = autoencoder.spec
    assert (spec.kind, spec.grid_height, spec.grid_width, spec.channels) == (
        "continuous",
        1,
        1,
        174,
    )
    assert not spec.deterministic
    assert autoencoder(some_images(), generator=stream()).kl.shape == (4, 174)
    encoded = autoencoder.encode(some_images())
    assert encoded.mean.shape == encoded.log_variance.shape == (4, 174, 1, 1)


@pytest.mark.parametrize("posterior", ["residual", "absolute"])
@torch.no_grad()
def test_kl_is_the_monte_carlo_mean_of_log_q_minus_log_p(posterior):
    """Over the same draws, so that the difference has mean zero and its own standard error."""
    autoencoder = build(posterior=posterior)
    images = some_images(1).expand(1500, -1, -1, -1)
    result = autoencoder(images, generator=stream())
    weights = autoencoder.log_weights(images, None, 1, stream())[0]
    difference = result.kl.sum(dim=1) - (-result.distortion - weights)
    assert difference.std() > 0.1
    assert difference.mean().abs() < 4 * standard_error(difference)


@torch.no_grad()
def test_the_mean_log_weight_is_the_evidence_lower_bound():
    autoencoder, images = build(), some_images(2)
    weights = autoencoder.log_weights(images, None, 800, stream(1))
    assert weights.shape == (800, 2)
    for image, of_image in zip(images, weights.T, strict=True):
        result = autoencoder(image.expand(800, -1, -1, -1), generator=stream(2))
        bounds = -result.distortion - result.kl.sum(dim=1)
        error = torch.hypot(standard_error(bounds), standard_error(of_image))
        assert (bounds.mean() - of_image.mean()).abs() < 4 * error


@torch.no_grad()
def test_importance_weights_estimate_one_likelihood_whatever_the_posterior():
    """p(x) knows no q: two q of one p must agree on it, and neither bound may exceed it."""
    small = {"grids": [4], "groups": [2], "widths": [6], "shaken": False}
    small |= {"bottleneck": GAUSSIAN | {"channels": 1}, "likelihood": BROAD | {"value": 2.0}}
    one, two = build(**small), build(**small)
    for autoencoder, factor in ((one, 0.3), (two, -0.2)):
        for group in autoencoder.top_down.groups[0]:
            torch.nn.init.normal_(group.prior.weight, std=0.3, generator=stream(1))
            group.posterior.weight.mul_(factor)
    draws, image = 4000, some_images(1)
    images = image.expand(draws, -1, -1, -1)
    estimates, bounds = [], []
    for seed, autoencoder in enumerate((one, two)):
        weights = autoencoder.log_weights(images, None, 5, stream(seed)).flatten().double()
        ratios = (weights - weights.max()).exp()
        error = standard_error(ratios) / ratios.mean()
        assert error < 0.1
        estimates.append((ratios.mean().log() + weights.max(), error))
        bounds.append(weights.mean())
    (first, first_error), (second, second_error) = estimates
    assert (first - second).abs() < 4 * torch.hypot(first_error, second_error)
    assert (bounds[0] - bounds[1]).abs() > 1e-3
    assert max(bounds) < min(first, second)


@torch.no_grad()
def test_what_is_stored_decodes_to_the_path_of_posterior_means():
    autoencoder, images = build(), some_images()
    encoded = autoencoder.encode(images)
    evidence = autoencoder.bottom_up(autoencoder.backbone.encoder(images))
    descent = autoencoder.top_down.infer(evidence, lambda posterior: posterior.mean)
    along = autoencoder.backbone.decoder(descent.features)
    torch.testing.assert_close(autoencoder.decode(encoded.mean), along)
    # Of the first group no draw stands before it: its KL is that of any pass.
    first = autoencoder.kl_groups["level_00_1x2"]
    stored = encoded.kl_per_number().flatten(1)[:, :first]
    torch.testing.assert_close(stored, autoencoder(images, generator=stream()).kl[:, :first])


@torch.no_grad()
def test_a_pass_is_the_decoding_of_its_own_draws():
    autoencoder, images = build(), some_images()
    evidence = autoencoder.bottom_up(autoencoder.backbone.encoder(images))
    draws = stream(3)
    descent = autoencoder.top_down.infer(evidence, lambda posterior: posterior.rsample(draws))
    latents = torch.cat([part.flatten(1) for part in descent.latents], dim=1)[:, :, None, None]
    again = autoencoder.likelihood.log_prob(images, autoencoder.decode(latents))
    torch.testing.assert_close(autoencoder(images, generator=stream(3)).distortion, -again)


@torch.no_grad()
def test_standard_normal_latents_follow_the_learned_prior():
    """The first latents of the finest grid have the moments that their ancestors give them."""
    autoencoder = build()
    sizes = list(autoencoder.kl_groups.values())
    latents = torch.randn(3000, sum(sizes), 1, 1, generator=stream())
    # Law of total variance, per number: Var z = E sigma_p^2 + Var mu_p.
    seen = {}
    group = autoencoder.top_down.groups[2][0]
    group.prior.register_forward_hook(lambda _, __, told: seen.update(told=told))
    group.project.register_forward_hook(lambda _, given, __: seen.update(z=given[0]))
    autoencoder.decode(latents)
    mean, log_std = seen["told"][:, :6].chunk(2, dim=1)
    variance = (10 * torch.tanh(log_std / 5)).exp()
    expected = variance.mean(dim=0) + mean.var(dim=0)
    relative = seen["z"].var(dim=0) / expected - 1
    assert mean.var(dim=0).mean() > 0.01
    # The relative error of a variance of n draws is sqrt(2 / n) for Gaussians.
    assert relative.mean().abs() < 4 * math.sqrt(2 / 3000)
    assert relative.abs().max() < 6 * math.sqrt(2 / 3000)


@torch.no_grad()
def test_resampling_a_level_changes_its_part_and_the_picture():
    autoencoder = build()
    latents = autoencoder.encode(some_images()).mean
    picture = autoencoder.decode(latents)
    names, sizes = zip(*autoencoder.kl_groups.items(), strict=True)
    for level in range(len(names)):
        changed = autoencoder.resample_level(latents, level, stream(level))
        pairs = zip(changed.split(sizes, 1), latents.split(sizes, 1), strict=True)
        same = [torch.equal(one, two) for one, two in pairs]
        assert same == [other != level for other in range(len(names))]
        assert (autoencoder.decode(changed) - picture).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    many = autoencoder.resample_level(latents.repeat(500, 1, 1, 1), 3, stream()).split(sizes, 1)[3]
    assert many.mean().abs() < 4 / math.sqrt(many.numel())
    assert (many.var() - 1).abs() < 4 * math.sqrt(2 / many.numel())


@pytest.mark.parametrize("posterior", ["residual", "absolute"])
def test_twenty_groups_start_with_finite_gradients(posterior):
    autoencoder = build(shaken=False, groups=[6, 6, 8], posterior=posterior).train()
    result = autoencoder(some_images(), generator=stream())
    expected = (result.distortion + result.kl.sum(dim=1)).mean() / IMAGE.dims
    torch.testing.assert_close(result.loss, expected)
    result.loss.backward()
    squares = 0.0
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        squares += parameter.grad.square().sum().item()
    assert 0 < math.sqrt(squares) < 10


@pytest.mark.parametrize("posterior", ["residual", "absolute"])
def test_a_few_steps_put_the_images_into_the_latents(posterior):
    changes = {"posterior": posterior, "likelihood": BROAD | {"value": 0.1}}
    autoencoder = build(shaken=False, groups=[1, 1, 1], **changes).train()
    images = some_images(8) * 0.1 + torch.linspace(-1, 1, 12)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=5e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        result = autoencoder(images, generator=stream(step))
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    assert max(losses[-5:]) < 0.2 * losses[0]
    assert result.kl.sum(dim=1).min() > 1


def test_grids_of_any_factor_are_reached():
    autoencoder = build(grids=[1, 3, 4], groups=[1, 1, 1])
    assert list(autoencoder.kl_groups) == ["level_00_1x2", "level_01_3x4", "level_02_4x6"]
    assert autoencoder.decode(autoencoder.encode(some_images()).mean).shape == (4, 3, 8, 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": [1, 2, 8]}, r"the last must be the 4 rows .* got \[1, 2, 8\]"),
        ({"grids": [2, 1, 4]}, "grids must rise"),
        ({"groups": [2, 1]}, "groups must have one number per grid: 3"),
        ({"widths": [8, 8, 8, 8]}, "widths must have one number per grid: 3"),
        ({"bottleneck": GAUSSIAN | {"layout": "vector"}}, "got gaussian with layout vector"),
        (
            {"bottleneck": {"kind": "identity", "layout": "spatial", "channels": 2}},
            "needs bottleneck.kind: gaussian",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ParamsError, match=message):
        build(**changes)


def test_the_latents_are_known_before_anything_is_built():
    autoencoder = build()
    params = parse_params(
        FirstStageParams,
        {
            "autoencoder": HIERARCHY,
            "backbone": conv([8], 0),
            "bottleneck": GAUSSIAN,
            "likelihood": BROAD,
            "objective": ELBO,
        },
        source="test",
        strict=True,
    )
    features = FeatureShape(8, 4, 6)
    spec = params.autoencoder.latent_spec(params.bottleneck, features, 0)
    assert spec == autoencoder.spec
