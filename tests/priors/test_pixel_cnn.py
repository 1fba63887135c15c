"""Gated PixelCNN as a prior: an exact distribution, causal, sampled as it is scored."""

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
from stages.nn.completion import KnownLatents
from stages.priors.pixel_cnn import PixelCnnOptions, PixelCnnPrior

NUM_CLASSES, CODES = 2, 3
OPTIONS = {
    "kind": "pixel_cnn",
    "layers": 2,
    "width": 6,
    "kernel_size": 3,
    "dropout": 0.0,
    "label_dropout": 0.1,
}
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)
MIXTURE = MixtureOptions(kind="mixture", components=2, std_floor=0.1, guidance_candidates=3)


def build(stored="codes", rows=2, columns=3, num_classes=NUM_CLASSES, **changes):
    torch.manual_seed(0)
    spec = {
        "codes": LatentSpec("codes", rows, columns, num_codes=CODES),
        "continuous": LatentSpec("continuous", rows, columns, channels=2),
    }[stored]
    head = CategoricalOptions(kind="categorical", tied=False) if stored == "codes" else MIXTURE
    prior = PixelCnnPrior(PixelCnnOptions(**{**OPTIONS, **changes}), head, spec, num_classes)
    for parameter in prior.parameters():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    return prior.eval()


def all_grids(rows, columns):
    every = itertools.product(range(CODES), repeat=rows * columns)
    return torch.tensor(list(every)).view(-1, rows, columns)


@pytest.mark.parametrize("label", [0, 1, None])
@pytest.mark.parametrize("kernel_size", [3, 5])
@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one(label, kernel_size):
    grids = all_grids(2, 3)
    labels = None if label is None else torch.full((len(grids),), label)
    nats = build(kernel_size=kernel_size).log_prob(grids, labels)
    assert nats.double().exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_logits_do_not_depend_on_the_token_they_predict_or_on_later_ones():
    prior = build("continuous", rows=3, columns=2, layers=4)
    tokens = torch.randn(2, 6, 2, requires_grad=True)
    hidden = prior.hidden(tokens, torch.tensor([0, 1]))
    for position in range(6):
        [gradient] = torch.autograd.grad(
            hidden[:, position].square().sum(), tokens, retain_graph=True
        )
        assert (gradient[:, position:] == 0).all()
        assert (gradient[:, :position].abs().amax(dim=2) > 0).all()


@pytest.mark.parametrize("stored", ["codes", "continuous"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_cached_sampling_sees_the_states_of_the_full_forward(stored, guidance, monkeypatch):
    prior, labels = build(stored, rows=3, columns=2), torch.tensor([0, 1, 1, 0])
    seen = []
    draw = prior.head.sample

    def remember(hidden, unconditional, uniforms, how):
        seen.append((hidden, unconditional))
        return draw(hidden, unconditional, uniforms, how)

    monkeypatch.setattr(prior.head, "sample", remember)
    how = SamplerSettings(**{**vars(MODEL), "guidance": guidance})
    latents = prior.sample(labels, torch.rand(4, *prior.noise_shape), how)
    tokens = latents.flatten(1) if stored == "codes" else latents.flatten(2).mT
    full = prior.hidden(tokens, labels)
    without = prior.hidden(tokens, torch.full((4,), NUM_CLASSES))
    for position, (hidden, unconditional) in enumerate(seen):
        torch.testing.assert_close(hidden, full[:, position], rtol=1e-4, atol=1e-4)
        assert (unconditional is None) == (guidance == 1)
        if unconditional is not None:
            torch.testing.assert_close(unconditional, without[:, position], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sampled_grids_have_the_probabilities_of_the_prior():
    prior, count = build(rows=2, columns=2), 20_000
    labels = torch.ones(count, dtype=torch.int64)
    codes = prior.sample(labels, torch.rand(count, *prior.noise_shape), MODEL)
    place = CODES ** torch.arange(3, -1, -1)
    counts = torch.bincount((codes.flatten(1) * place).sum(1), minlength=81)
    expected = count * prior.log_prob(all_grids(2, 2), torch.ones(81).long()).double().exp()
    common = expected > 5
    # Pearson's test over the grids expected five times or more, the others pooled, at level 1e-4.
    pooled = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum().clamp(min=1e-9)[None]])
    statistic = ((pooled - wanted).square() / wanted).sum().item()
    assert statistic < chi2.isf(1e-4, len(pooled) - 1)


def test_it_learns_a_distribution_it_is_shown():
    prior = build(layers=1).train()
    grids = torch.tensor(
        [[0, 1, 2, 0, 0, 1], [0, 1, 2, 0, 0, 1], [2, 2, 1, 0, 1, 1], [2, 2, 0, 0, 1, 1]]
    )
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-2)
    torch.manual_seed(0)
    for _ in range(50):
        optimizer.zero_grad()
        prior.loss(grids.view(4, 2, 3), labels).backward()
        optimizer.step()
    nats = -prior.eval().log_prob(grids.view(4, 2, 3), labels).detach()
    # Class 1 is one of two grids: log 2 nats.
    torch.testing.assert_close(nats, torch.tensor([0.0, 0.0, 0.693, 0.693]), atol=0.1, rtol=0)


@pytest.mark.parametrize("stored", ["codes", "continuous"])
@torch.no_grad()
def test_known_cells_stay_and_weigh_what_the_model_says(stored):
    prior, labels = build(stored), torch.tensor([0, 1, 1, 0])
    uniforms = torch.rand(4, *prior.noise_shape)
    given = prior.sample(labels, torch.rand(4, *prior.noise_shape), MODEL)
    everything = torch.ones(4, 2, 3, dtype=torch.bool)
    whole = prior.complete(labels, uniforms, MODEL, KnownLatents(given, everything))
    assert torch.equal(whole.latents, given) and whole.exact
    nats = prior.log_prob(given, labels)
    torch.testing.assert_close(whole.log_weight, nats, rtol=1e-4, atol=1e-4)
    nothing = prior.complete(labels, uniforms, MODEL, KnownLatents(given, ~everything))
    torch.testing.assert_close(nothing.latents, prior.sample(labels, uniforms, MODEL))
    last = everything.clone()
    last[:, 0] = False
    assert not prior.complete(labels, uniforms, MODEL, KnownLatents(given, last)).exact


def test_guidance_needs_classes_and_label_dropout():
    how, labels = SamplerSettings(**{**vars(MODEL), "guidance": 2.0}), torch.tensor([0, 1])
    for prior, given in ((build(num_classes=0), None), (build(label_dropout=0.0), labels)):
        with pytest.raises(ParamsError, match=r"sampling\.guidance: must be 1"):
            prior.sample(given, torch.rand(2, *prior.noise_shape), how)


def test_a_window_has_a_middle():
    with pytest.raises(ParamsError, match=r"kernel_size: must be odd; got 4"):
        validate(PixelCnnOptions, {**OPTIONS, "kernel_size": 4}, source="params.yaml")
