"""A prior learned per class: coordinates change, and neither KL nor evidence does."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.errors import ParamsError
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.nn.distributions import DiagonalGaussian
from tests.backbones.examples import conv
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 8, 12)
NUM_CLASSES = 5
SPATIAL = {"kind": "gaussian", "layout": "spatial", "channels": 4}
VECTOR = {"kind": "gaussian", "layout": "vector", "channels": 1}
LABELS = torch.tensor([0, 3, 4, 3])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def build(bottleneck=SPATIAL, num_classes=NUM_CLASSES, learned=True, objective=ELBO):
    sections = {
        "autoencoder": {"kind": "conditional", "blocks": 1},
        "backbone": conv([8, 10], 1),
        "bottleneck": bottleneck,
        "likelihood": {"kind": "gaussian", "sigma": "fixed", "value": 3.0, "decay": 0.9},
        "objective": objective,
    }
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    torch.manual_seed(0)
    autoencoder = build_first_stage(params, IMAGE, num_classes)
    if learned:
        numbers = 2 * autoencoder.spec.numbers
        autoencoder.class_prior = table_of(0.7 * torch.randn(num_classes, numbers))
    return autoencoder


def table_of(moments):
    """Means and log-deviations by class, in the place of what learns them."""
    return torch.nn.Embedding.from_pretrained(moments, freeze=False)


def some_images(batch=4):
    """Smooth images: a different slope each."""
    slopes = torch.randn(batch, 3, 2, 1, 1, generator=stream(9))
    rows = torch.linspace(-1, 1, IMAGE.height)[:, None]
    columns = torch.linspace(-1, 1, IMAGE.width)
    return torch.tanh(2 * (slopes[:, :, 0] * rows + slopes[:, :, 1] * columns))


def own_coordinates(autoencoder, images, labels):
    """q(z given x, c) and p(z given c) over z itself, as torch's distributions."""
    features = autoencoder.backbone.encoder(images)
    features = features + autoencoder.encoder_class(labels)[:, :, None, None]
    posterior = autoencoder.bottleneck.encode(autoencoder.encoder_blocks(features))
    mean, log_std = autoencoder.prior_of(labels)
    return Normal(posterior.mean, posterior.std), Normal(mean, log_std.exp())


@torch.no_grad()
def test_the_kl_is_that_of_the_posterior_from_the_prior_of_its_class():
    autoencoder, images = build(), some_images()
    expected = kl_divergence(*own_coordinates(autoencoder, images, LABELS))
    result = autoencoder(images, LABELS, stream())
    torch.testing.assert_close(result.kl, expected.flatten(1), rtol=1e-4, atol=1e-4)
    assert sum(autoencoder.kl_groups.values()) == result.kl.shape[1] == autoencoder.spec.numbers
    again = autoencoder.encode(images, LABELS).kl_per_number()
    torch.testing.assert_close(result.kl, again.flatten(1))


@torch.no_grad()
def test_the_decoder_gets_what_was_drawn_in_its_own_coordinates():
    autoencoder, seen = build(), []
    autoencoder.bottleneck.project_out.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    latents = torch.randn(4, 4, 2, 3, generator=stream())
    autoencoder.decode(latents, LABELS)
    for image, label in enumerate(LABELS.tolist()):
        row = autoencoder.class_prior.weight[label]
        mean, log_std = row[:24].view(4, 2, 3), row[24:].view(4, 2, 3)
        torch.testing.assert_close(seen[0][image], mean + log_std.exp() * latents[image])


@torch.no_grad()
def test_densities_in_stored_coordinates_differ_by_the_jacobian_alone():
    autoencoder, images = build(), some_images()
    posterior, prior = own_coordinates(autoencoder, images, LABELS)
    stored = autoencoder.encode(images, LABELS)
    latents = stored.rsample(stream())
    mean, log_std = autoencoder.prior_of(LABELS)
    own = mean + log_std.exp() * latents
    jacobian = log_std.sum(dim=(1, 2, 3))
    for density, reference in (
        (stored.log_prob(latents), posterior),
        (stored.standard_log_prob(latents), prior),
    ):
        expected = reference.log_prob(own).sum(dim=(1, 2, 3)) + jacobian
        torch.testing.assert_close(density, expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_importance_weights_estimate_the_evidence_of_the_class():
    autoencoder, images = build(VECTOR), some_images()
    # A posterior not far from its prior: the variance of the weights is small.
    autoencoder.bottleneck.project_in[1].weight.mul_(0.1)
    autoencoder.class_prior.weight.mul_(0.5)
    many = images.repeat(250, 1, 1, 1), LABELS.repeat(250)
    log_weights = autoencoder.log_weights(*many, 16, stream()).double().view(-1, 4)
    places = torch.linspace(-8, 8, 401)
    evidence = []
    for image, label in zip(images, LABELS, strict=True):
        likelihood = autoencoder.likelihood.log_prob(
            image.expand(401, -1, -1, -1),
            autoencoder.decode(places.view(-1, 1, 1, 1), label.expand(401)),
        )
        density = Normal(0.0, 1.0).log_prob(places) + likelihood
        highest = density.max().double()
        mass = torch.trapezoid((density - highest).double().exp(), places.double())
        evidence.append(mass.log() + highest)
    ratios = (log_weights - torch.stack(evidence)).exp()
    # Five standard errors: wrong once in four hundred thousand seeds, for four images.
    error = 5 * ratios.std(dim=0) / len(ratios) ** 0.5
    assert ((ratios.mean(dim=0) - 1).abs() < error).all()
    assert (error < 0.2).all(), "an interval that excludes nothing"


@torch.no_grad()
def test_the_mean_log_weight_is_the_evidence_lower_bound():
    autoencoder, images = build(), some_images()
    many = images.repeat(250, 1, 1, 1), LABELS.repeat(250)
    log_weights = autoencoder.log_weights(*many, 8, stream()).view(-1, 4)
    kl = autoencoder.encode(images, LABELS).kl_per_number().sum(dim=(1, 2, 3))
    bounds = [-autoencoder(*many, stream(seed)).distortion.view(250, 4) - kl for seed in range(8)]
    bounds = torch.cat(bounds)
    error = 5 * ((log_weights.var(dim=0) + bounds.var(dim=0)) / len(bounds)).sqrt()
    assert ((log_weights.mean(dim=0) - bounds.mean(dim=0)).abs() < error).all()


@torch.no_grad()
def test_it_starts_from_a_standard_prior_that_no_class_changes():
    autoencoder = build(learned=False)
    mean, log_std = autoencoder.prior_of(torch.arange(NUM_CLASSES))
    assert mean.shape == (NUM_CLASSES, 4, 2, 3)
    assert not mean.any() and not log_std.any()
    statistics = autoencoder(some_images(), LABELS, stream()).statistics
    assert statistics["class_prior_spread"] == 0


@torch.no_grad()
def test_spread_of_priors_is_the_variance_between_over_that_within():
    autoencoder = build(VECTOR, num_classes=2)
    autoencoder.class_prior = table_of(torch.tensor([[1.0, 0.0], [5.0, math.log(3)]]))
    statistics = autoencoder(some_images(), torch.tensor([0, 1, 1, 0]), stream()).statistics
    # Means 1 and 5: variance 4; deviations 1 and 3: mean square 5.
    assert statistics["class_prior_spread"].item() == pytest.approx(4 / 5)


@torch.no_grad()
def test_encoder_and_decoder_know_the_class():
    autoencoder, image = build(learned=False), some_images(1).expand(NUM_CLASSES, -1, -1, -1)
    classes = torch.arange(NUM_CLASSES)
    posterior = autoencoder.encode(image, classes)
    pictures = autoencoder.decode(torch.zeros(NUM_CLASSES, 4, 2, 3), classes)
    for told in (posterior.mean, pictures):
        assert (torch.pdist(told.flatten(1)) > 1e-3).all()


@torch.no_grad()
def test_an_image_depends_on_its_own_class_only():
    autoencoder, images = build(), some_images()
    order = torch.tensor([2, 0, 3, 1])
    whole = autoencoder.encode(images, LABELS)
    again = autoencoder.encode(images[order], LABELS[order])
    torch.testing.assert_close(again.mean, whole.mean[order])
    torch.testing.assert_close(again.log_variance, whole.log_variance[order])


def test_the_loss_is_the_weighed_bound_and_reaches_every_parameter():
    autoencoder = build(learned=False, objective=ELBO | {"kl_weight": 3.0})
    result = autoencoder(some_images(), LABELS, stream())
    expected = (result.distortion + 3 * result.kl.sum(dim=1)).mean() / IMAGE.dims
    torch.testing.assert_close(result.loss, expected)
    result.loss.backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # Branches and the class's prior end in zeros: a first step reaches nothing behind them.
        assert parameter.grad.any() or "branch.1" in name or name == "class_prior.0.weight", name


def test_the_best_prior_of_a_class_is_the_moments_of_its_latents():
    """With posteriors held, KL is least at their mean and their whole variance, by class."""
    autoencoder = build(VECTOR)
    images, labels = some_images(6), torch.tensor([0, 1, 0, 0, 1, 1])
    table = autoencoder.class_prior.weight
    slopes = []
    for place in ("start", "best"):
        if place == "best":
            with torch.no_grad():
                posterior, _ = own_coordinates(autoencoder, images, labels)
                for label in (0, 1):
                    means, stds = (
                        moment.flatten()[labels == label]
                        for moment in (posterior.mean, posterior.stddev)
                    )
                    whole = stds.square().mean() + means.var(correction=0)
                    table[label] = torch.stack([means.mean(), 0.5 * whole.log()])
        kl = autoencoder.encode(images, labels).kl_per_number().sum()
        slopes.append(torch.autograd.grad(kl, table)[0][:2].abs())
    assert (slopes[0] > 1e-2).all() and (slopes[1] < 1e-4).all()


def test_a_few_steps_fit_a_few_images():
    autoencoder, images = build(), some_images()
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2)
    errors = []
    for step in range(30):
        optimizer.zero_grad()
        result = autoencoder(images, LABELS, stream(step))
        (result.reconstructions - images).square().mean().backward()
        optimizer.step()
        errors.append((result.reconstructions - images).square().mean().item())
    assert min(errors[-5:]) < 0.6 * errors[0]


def test_what_is_stored_is_the_bottlenecks_shape_of_gaussian_posteriors():
    autoencoder = build()
    assert isinstance(autoencoder.encode(some_images(), LABELS), DiagonalGaussian)
    assert (autoencoder.spec.kind, autoencoder.spec.channels) == ("continuous", 4)
    assert autoencoder.num_classes == NUM_CLASSES


def test_data_without_classes_are_refused():
    with pytest.raises(ParamsError, match="'conditional' .* dataset have no classes"):
        build(num_classes=0, learned=False)


def test_other_bottlenecks_are_refused():
    for values in BOTTLENECKS:
        if values["kind"] != "gaussian":
            with pytest.raises(ParamsError, match=f"must be gaussian .* got '{values['kind']}'"):
                build(values)
