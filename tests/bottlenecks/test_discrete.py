"""Codes by gradient estimators: what the decoder sees, what is charged, what the gradient is."""

import copy
import itertools
import math

import pytest
import torch

from stages.core.errors import ParamsError
from tests.bottlenecks.examples import FEATURES, build, example

both = pytest.mark.parametrize("kind", ["gumbel", "score_function"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def at(step):
    return torch.tensor(float(step))


def some_features(batch=4):
    return torch.randn(batch, *FEATURES, generator=stream(5))


@both
def test_outside_training_codes_are_the_most_probable_ones(kind):
    bottleneck, features = example(kind).eval(), some_features()
    result = bottleneck(features, stream(), at(0))
    assert torch.equal(result.codes, bottleneck.logits(features).argmax(dim=-1))
    assert torch.equal(result.codes, bottleneck.encode(features))
    assert torch.equal(result.features, bottleneck.decode(result.codes))
    assert torch.equal(result.features, bottleneck(features, stream(1), at(99)).features)


@both
def test_encoding_is_the_same_in_training(kind):
    bottleneck, features = example(kind), some_features()
    assert torch.equal(bottleneck.encode(features), bottleneck.eval().encode(features))


@both
def test_the_kl_is_that_of_all_codes_enumerated(kind):
    bottleneck, features = example(kind), some_features()
    for mode in (bottleneck.train(), bottleneck.eval()):
        kl = mode(features, stream()).kl
        assert kl.shape == (4, 1, FEATURES.grid_height, FEATURES.grid_width)
        q = torch.softmax(bottleneck.logits(features).double(), dim=-1)
        num_codes = bottleneck.spec.num_codes
        expected = sum(q[..., k] * torch.log(q[..., k] * num_codes) for k in range(num_codes))
        torch.testing.assert_close(kl[:, 0].double(), expected, atol=1e-6, rtol=1e-5)


@both
def test_everything_is_float32_under_autocast(kind):
    bottleneck, features = example(kind), some_features()
    exact = bottleneck(features, stream())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = bottleneck(features, stream())
        assert torch.equal(bottleneck.encode(features), bottleneck.eval().encode(features))
    assert mixed.features.dtype == mixed.kl.dtype == torch.float32
    assert torch.equal(mixed.features, exact.features) and torch.equal(mixed.kl, exact.kl)


@both
def test_codes_start_level_on_data(kind):
    bottleneck, features = example(kind), 3 + some_features(batch=200)
    bottleneck.start_from_data(features, stream())
    mean = bottleneck.logits(features).mean(dim=(0, 1, 2))
    torch.testing.assert_close(mean, torch.zeros(7), atol=1e-4, rtol=0)
    assert bottleneck(features, stream()).statistics["code_perplexity"] > 0.8 * 7


@pytest.mark.parametrize("estimator", ["straight_through", "soft"])
def test_the_temperature_falls_on_a_cosine(estimator):
    changes = {"tau_start": 1.0, "tau_end": 0.25, "tau_steps": 40, "estimator": estimator}
    bottleneck, features = example("gumbel", **changes), some_features()
    for step, tau in ((at(0), 1.0), (at(20), 0.625), (at(40), 0.25), (at(90), 0.25), (None, 0.25)):
        statistics = bottleneck(features, stream(), step).statistics
        assert statistics["tau"].item() == pytest.approx(tau)
    quarter = 1 - 0.75 * (1 - math.cos(math.pi / 4)) / 2
    tau = bottleneck(features, stream(), at(10)).statistics["tau"]
    assert tau.item() == pytest.approx(quarter)


def test_a_temperature_that_rises_is_refused():
    with pytest.raises(ParamsError, match=r"tau_end must not exceed tau_start.*0.5 to 0.75"):
        example("gumbel", tau_start=0.5, tau_end=0.75)


def test_straight_through_gives_the_decoder_codes():
    bottleneck = example("gumbel", estimator="straight_through")
    result = bottleneck(some_features(), stream(), at(0))
    torch.testing.assert_close(result.features, bottleneck.decode(result.codes))


def test_soft_gives_the_decoder_mixtures_that_harden_with_the_temperature():
    features = some_features()
    distances = []
    for tau in (4.0, 1.0, 0.01):
        torch.manual_seed(0)
        bottleneck = example("gumbel", estimator="soft", tau_start=tau, tau_end=tau)
        result = bottleneck(features, stream(), at(0))
        hard = bottleneck.decode(result.codes)
        distances.append((result.features - hard).square().mean().item())
    assert distances[0] > distances[1] > 50 * distances[2]


def test_gradients_of_both_gumbel_estimators_reach_every_logit():
    for estimator in ("straight_through", "soft"):
        bottleneck = example("gumbel", estimator=estimator)
        bottleneck(some_features(), stream(), at(0)).features.square().sum().backward()
        assert (bottleneck.logits.layer.bias.grad.abs() > 0).all()


def test_log_posterior_is_that_of_the_codes_drawn():
    bottleneck, features = example("score_function"), some_features()
    result = bottleneck(features, stream())
    log_q = torch.log_softmax(bottleneck.logits(features), dim=-1)
    for image in range(4):
        cells = itertools.product(range(FEATURES.grid_height), range(FEATURES.grid_width))
        expected = sum(log_q[image, r, c, result.codes[image, r, c]] for r, c in cells)
        torch.testing.assert_close(result.log_posterior[image], expected)


def test_reinforce_is_unbiased_against_enumeration():
    """Gradient of E_q[cost] with respect to features, cost a crooked function of two cells."""
    torch.manual_seed(1)
    bottleneck = example("score_function", num_codes=3)
    one = torch.randn(1, *FEATURES, generator=stream(2))[:, :, :1, :2]

    def cost(decoded):
        # The cells' product: what one cell's code costs depends on the other's.
        return 5 + torch.tanh(decoded).prod(dim=3).sum(dim=(1, 2)) ** 2

    exact_features = one.clone().requires_grad_()
    log_q = torch.log_softmax(bottleneck.logits(exact_features), dim=-1)
    expected = 0.0
    for left, right in itertools.product(range(3), repeat=2):
        value = cost(bottleneck.decode(torch.tensor([[[left, right]]]))).detach()
        expected = expected + (log_q[0, 0, 0, left] + log_q[0, 0, 1, right]).exp() * value
    [exact] = torch.autograd.grad(expected.sum(), exact_features)

    draws = 20_000
    bottleneck.surrogate(bottleneck(one, stream(9)), torch.tensor([5.0]))
    bottleneck.after_step(stream())
    many = one.expand(draws, -1, -1, -1).clone().requires_grad_()
    passed = bottleneck(many, stream(3))
    bottleneck.surrogate(passed, cost(passed.features.detach())).backward()
    each = many.grad.double() * draws
    # Twelve numbers at five standard errors each, and a gradient that is not lost in them.
    error = each.std(dim=0) / draws**0.5
    assert ((each.mean(dim=0) - exact[0]).abs() < 5 * error).all()
    assert exact.norm() > 20 * error.norm()


def test_the_surrogate_is_worth_nothing():
    bottleneck = example("score_function")
    for step in range(3):
        passed = bottleneck(some_features(), stream(step))
        loss = bottleneck.surrogate(passed, torch.tensor([30.0, 10.0, 20.0, 50.0]))
        assert loss.item() == 0
        bottleneck.after_step(stream())
    loss.backward()
    assert bottleneck.logits.layer.weight.grad.any() and bottleneck.baseline.out.weight.grad.any()


def test_outside_training_there_is_no_surrogate_and_nothing_is_learned():
    bottleneck = example("score_function").eval()
    before = copy.deepcopy(bottleneck.state_dict())
    passed = bottleneck(some_features(), stream())
    assert not bottleneck.surrogate(passed, torch.ones(4)).requires_grad
    assert all(torch.equal(before[n], v) for n, v in bottleneck.state_dict().items())


def test_gumbel_needs_no_surrogate():
    bottleneck = example("gumbel")
    passed = bottleneck(some_features(), stream(), at(0))
    assert bottleneck.surrogate(passed, torch.ones(4)).item() == 0


def test_the_baseline_and_its_moments_survive_saving():
    one = example("score_function")
    two = build({"kind": "score_function", **one.options.model_dump()})

    def signals(bottleneck, steps):
        for step in steps:
            passed = bottleneck(some_features(), stream(step))
            cost = 20 + passed.features.detach().square().sum(dim=(1, 2, 3))
            yield bottleneck.baseline(some_features(), cost)[0]
            bottleneck.surrogate(passed, cost)
            bottleneck.after_step(stream())

    list(signals(one, range(3)))
    two.load_state_dict(one.state_dict())
    for first, second in zip(signals(one, range(3, 6)), signals(two, range(3, 6)), strict=True):
        assert torch.equal(first, second) and first.any()
