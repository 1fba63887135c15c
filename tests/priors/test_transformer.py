"""The autoregressive prior: an exact distribution, causal, sampled as it is scored."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import validate
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.heads.mixture import MixtureOptions
from stages.priors.transformer import TransformerOptions, TransformerPrior
from tests.priors.sections import TRANSFORMER

NUM_CLASSES = 2
HEIGHT, WIDTH, CODES = 1, 4, 3
OPTIONS = {**TRANSFORMER, "width": 12, "num_heads": 3}
VARIANTS = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "any_order": {"order": "random_to_raster", "random_until": 3, "raster_from": 7},
    "rotary_any_order": {
        "positions": "rotary",
        "order": "random_to_raster",
        "random_until": 3,
        "raster_from": 7,
    },
    "plain_attention": {"query_key_norm": False},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)
MIXTURE = MixtureOptions(kind="mixture", components=2, std_floor=0.1, guidance_candidates=3)


def settings(**changes):
    return SamplerSettings(**{**vars(MODEL), **changes})


def build(stored="codes", num_classes=NUM_CLASSES, height=HEIGHT, width=WIDTH, **changes):
    torch.manual_seed(0)
    spec = {
        "codes": LatentSpec("codes", height, width, num_codes=CODES),
        "continuous": LatentSpec("continuous", height, width, channels=2),
    }[stored]
    head = CategoricalOptions(kind="categorical", tied=False) if stored == "codes" else MIXTURE
    options = TransformerOptions(**{**OPTIONS, **changes})
    prior = TransformerPrior(options, head, spec, num_classes)
    for parameter in prior.parameters():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    return prior.eval()


def all_grids():
    return torch.tensor(list(itertools.product(range(CODES), repeat=HEIGHT * WIDTH))).view(
        -1, HEIGHT, WIDTH
    )


@every_variant
@pytest.mark.parametrize("label", [0, 1, None])
@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one(label, variant):
    grids = all_grids()
    labels = None if label is None else torch.full((len(grids),), label)
    total = build(**variant).log_prob(grids, labels).double().exp().sum().item()
    assert total == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_classes_differ_and_no_class_is_one_more():
    prior, grids = build(), all_grids()[:5]
    scores = [prior.log_prob(grids, torch.full((5,), label)) for label in range(NUM_CLASSES)]
    assert not torch.allclose(scores[0], scores[1])
    no_class = torch.full((5,), NUM_CLASSES)
    assert torch.equal(prior.log_prob(grids, None), prior.log_prob(grids, no_class))


@torch.no_grad()
def test_data_without_classes_have_the_one_distribution():
    prior, grids = build(num_classes=0), all_grids()
    assert torch.equal(prior.log_prob(grids, None), prior.log_prob(grids, torch.ones(81).long()))
    assert prior.log_prob(grids, None).double().exp().sum().item() == pytest.approx(1, abs=1e-5)


@every_variant
def test_logits_do_not_depend_on_the_token_they_predict_or_on_later_ones(variant):
    prior = build("continuous", height=2, width=3, **variant)
    tokens = torch.randn(2, 6, 2, requires_grad=True)
    # In an order of each image's own where the prior can: the past is what came before in it.
    order = torch.stack([torch.randperm(6), torch.randperm(6)]) if "order" in variant else None
    hidden = prior.hidden(tokens, torch.tensor([0, 1]), order)
    for position in range(6):
        [gradient] = torch.autograd.grad(
            hidden[:, position].square().sum(), tokens, retain_graph=True, materialize_grads=True
        )
        assert (gradient[:, position:] == 0).all()
        assert (gradient[:, :position].abs().amax(dim=2) > 0).all()


@every_variant
@torch.no_grad()
def test_an_order_is_a_factorisation_of_its_own_that_sums_to_one(variant):
    """Every order sums to one; raster, given as an order, is what `log_prob` takes."""
    prior, grids = build(**variant), all_grids().flatten(1)
    classes = torch.ones(len(grids), dtype=torch.int64)
    scores = []
    for places in ([0, 1, 2, 3], [2, 0, 3, 1]):
        order = torch.tensor(places).expand(len(grids), 4)
        tokens = grids.gather(1, order)
        hidden = prior.hidden(tokens, classes, order)
        scores.append(prior.head.log_prob(hidden, tokens).sum(dim=1))
        assert scores[-1].double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(scores[0], prior.log_prob(all_grids(), classes))
    assert (scores[0] - scores[1]).abs().max() > 0.01


@pytest.mark.parametrize("variant", ["any_order", "rotary_any_order"])
def test_training_goes_from_random_orders_to_raster(variant, monkeypatch):
    prior, count = build(height=2, width=3, **VARIANTS[variant]), 400
    seen = []
    hidden = prior.hidden

    def remember(tokens, classes, order):
        seen.append((tokens, order))
        return hidden(tokens, classes, order)

    monkeypatch.setattr(prior, "hidden", remember)
    codes, labels = torch.randint(0, CODES, (count, 2, 3)), torch.zeros(count, dtype=torch.int64)
    shares = []
    for step in (0.0, 3.0, 5.0, 7.0, 9.0):
        prior.loss(codes, labels, torch.tensor(step))
        tokens, order = seen[-1]
        assert torch.equal(order.sort(dim=1).values, torch.arange(6).expand(count, 6))
        assert torch.equal(tokens, codes.flatten(1).gather(1, order))
        shares.append((order != torch.arange(6)).any(dim=1).double().mean().item())
    # One permutation of 720 is raster; five standard errors of 400 coins are 0.125.
    assert min(shares[:2]) > 0.97 and shares[2] == pytest.approx(0.5, abs=0.125)
    assert shares[3:] == [0.0, 0.0]
    prior.loss(codes, labels)
    assert torch.equal(seen[-1][1], torch.arange(6).expand(count, 6))


@every_variant
@pytest.mark.parametrize("stored", ["codes", "continuous"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_cached_sampling_sees_the_states_of_the_full_forward(
    stored, guidance, variant, monkeypatch
):
    prior = build(stored, height=2, width=3, **variant)
    labels = torch.tensor([0, 1, 1, 0])
    seen = []
    draw = prior.head.sample

    def remember(hidden, unconditional, uniforms, how):
        seen.append((hidden, unconditional))
        return draw(hidden, unconditional, uniforms, how)

    monkeypatch.setattr(prior.head, "sample", remember)
    latents = prior.sample(labels, torch.rand(4, *prior.noise_shape), settings(guidance=guidance))
    tokens = latents.flatten(1) if stored == "codes" else latents.flatten(2).mT
    full = prior.hidden(tokens, labels)
    without = prior.hidden(tokens, torch.full((4,), NUM_CLASSES))
    for position, (hidden, unconditional) in enumerate(seen):
        torch.testing.assert_close(hidden, full[:, position], rtol=1e-4, atol=1e-4)
        if guidance == 1:
            assert unconditional is None
        else:
            torch.testing.assert_close(unconditional, without[:, position], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sampled_grids_have_the_probabilities_of_the_prior():
    prior, count = build(), 20_000
    labels = torch.ones(count, dtype=torch.int64)
    codes = prior.sample(labels, torch.rand(count, *prior.noise_shape), MODEL)
    place = CODES ** torch.arange(HEIGHT * WIDTH - 1, -1, -1)
    counts = torch.bincount((codes.flatten(1) * place).sum(1), minlength=81)
    expected = count * prior.log_prob(all_grids(), torch.ones(81).long()).double().exp()
    common = expected > 5
    # Pearson's test over the grids expected five times or more, the others pooled, at level 1e-4.
    pooled = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum().clamp(min=1e-9)[None]])
    statistic = ((pooled - wanted).square() / wanted).sum().item()
    assert statistic < chi2.isf(1e-4, len(pooled) - 1)


@pytest.mark.parametrize("stored", ["codes", "continuous"])
def test_guidance_1_is_none_and_0_ignores_the_class(stored):
    prior = build(stored)
    uniforms = torch.rand(6, *prior.noise_shape)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    free = [
        prior.sample(labels, uniforms, settings(guidance=0.0)) for labels in (labels, 1 - labels)
    ]
    assert torch.equal(*free)
    if stored == "codes":
        assert torch.equal(free[0], prior.sample(None, uniforms, MODEL))
    near = prior.sample(labels, uniforms, settings(guidance=1 + 1e-12))
    if stored == "codes":
        assert torch.equal(near, prior.sample(labels, uniforms, MODEL))


def test_guidance_needs_classes_and_label_dropout():
    labels = torch.tensor([0, 1])
    for prior, given, message in (
        (build(num_classes=0), None, "without classes"),
        (build(), None, "without classes"),
        (build(label_dropout=0.0), labels, "label_dropout 0"),
    ):
        with pytest.raises(ParamsError, match=message):
            prior.sample(given, torch.rand(2, *prior.noise_shape), settings(guidance=2.0))


def test_label_dropout_shows_no_class_as_often_as_asked(monkeypatch):
    prior = build(label_dropout=0.3)
    seen = []
    hidden = prior.hidden
    monkeypatch.setattr(prior, "hidden", lambda t, c, o: seen.append(c) or hidden(t, c, o))
    labels = torch.zeros(4000, dtype=torch.int64)
    torch.manual_seed(1)
    prior.loss(torch.zeros(4000, HEIGHT, WIDTH, dtype=torch.int64), labels)
    dropped = (seen[0] == NUM_CLASSES).double().mean().item()
    # Four standard errors: a right implementation fails once in 16,000 seeds.
    assert dropped == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    assert set(seen[0].tolist()) == {0, NUM_CLASSES}


def test_it_learns_a_distribution_it_is_shown():
    prior = build(layers=1).train()
    # Class 0 is always the grid 0 1 2 0, class 1 the grid 2 2 1 or 2 2 0, then 0: log 2 nats.
    grids = torch.tensor([[[0, 1, 2, 0]], [[0, 1, 2, 0]], [[2, 2, 1, 0]], [[2, 2, 0, 0]]])
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        prior.loss(grids, labels).backward()
        optimizer.step()
    nats = -prior.eval().log_prob(grids, labels).detach()
    torch.testing.assert_close(nats, torch.tensor([0.0, 0.0, 0.693, 0.693]), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "rotary", "num_heads": 6}, "multiple of 4 with positions rotary .* 12 / 6"),
        ({"raster_from": 5}, "must be 0 with order raster; got random_until 0 and raster_from 5"),
        (
            {"order": "random_to_raster", "random_until": 5, "raster_from": 5},
            "random_until must be below raster_from",
        ),
    ],
)
def test_places_and_orders_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ParamsError, match=message):
        validate(TransformerOptions, {**OPTIONS, **changes}, source="params.yaml")


def test_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ParamsError, match="width must be a multiple of num_heads; got 12 and 5"):
        validate(TransformerOptions, {**OPTIONS, "num_heads": 5}, source="params.yaml")
