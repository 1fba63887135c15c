"""Completing grids: what comes first is conditioned on exactly, the rest by weights."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import parse_params
from stages.heads.base import SamplerSettings
from stages.nn.completion import KnownLatents
from stages.priors.base import Prior
from tests.priors.sections import BLOCKS, TRANSFORMER

NUM_CODES = 2
SIZES = {"width": 12, "num_heads": 3}
SPECS = {
    "transformer": LatentSpec("codes", 2, 3, num_codes=NUM_CODES),
    "two_level": LatentSpec("codes", 1, 6, num_codes=NUM_CODES, parts=((1, 2), (1, 4))),
    "depth_transformer": LatentSpec("codes", 1, 6, num_codes=NUM_CODES, parts=((1, 3), (1, 3))),
}
PRIORS = {
    "transformer": {**TRANSFORMER, "layers": 1, **SIZES},
    "two_level": {"coarse_layers": 1, "fine_layers": 1, "context_blocks": 0, **BLOCKS, **SIZES},
    "depth_transformer": {"layers": 1, "depth_layers": 1, **BLOCKS, **SIZES},
}
# Whole stacks of the first cell are codes 0 and 3; otherwise the order is that of storage.
PREFIX = {
    "transformer": [1, 1, 1, 0, 0, 0],
    "two_level": [1, 1, 1, 0, 0, 0],
    "depth_transformer": [1, 0, 0, 1, 0, 0],
}
SUFFIX = {name: [1 - known for known in mask] for name, mask in PREFIX.items()}
LATENTS = torch.tensor([1, 0, 1, 1, 0, 0])
every_kind = pytest.mark.parametrize("kind", SPECS)


def build(kind: str) -> Prior:
    # Of this seed what is known later tells much: ignoring it would be seen.
    torch.manual_seed(1)
    raw = {"prior": {"kind": kind, **PRIORS[kind]}, "head": {"kind": "categorical", "tied": False}}
    params = parse_params(SecondStageParams, raw, source="test", strict=True)
    prior = build_second_stage(params, SPECS[kind], num_classes=3)
    for parameter in prior.parameters():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    return prior.eval()


def known(prior: Prior, mask: list[int], count: int) -> KnownLatents:
    grid = (prior.spec.grid_height, prior.spec.grid_width)
    return KnownLatents(
        LATENTS.view(1, *grid).expand(count, *grid),
        torch.tensor(mask).bool().view(1, *grid).expand(count, *grid),
    )


def conditional(prior: Prior, mask: list[int]) -> torch.Tensor:
    """p(grid given known cells and class 1) of every grid, by enumeration; float64."""
    rows = torch.tensor(list(itertools.product(range(NUM_CODES), repeat=6)))
    grids = rows.view(-1, prior.spec.grid_height, prior.spec.grid_width)
    with torch.no_grad():
        joint = prior.log_prob(grids, torch.ones(len(rows), dtype=torch.int64)).double().exp()
    agree = ((rows == LATENTS) | ~torch.tensor(mask).bool()).all(dim=1)
    return joint * agree / (joint * agree).sum()


def numbered(latents: torch.Tensor) -> torch.Tensor:
    return (latents.flatten(1) * NUM_CODES ** torch.arange(5, -1, -1)).sum(dim=1)


def completions(prior: Prior, mask: list[int], count: int):
    uniforms = torch.rand(count, *prior.noise_shape, generator=torch.Generator().manual_seed(1))
    labels = torch.ones(count, dtype=torch.int64)
    return prior.complete(labels, uniforms, SamplerSettings(), known(prior, mask, count))


@every_kind
def test_a_prefix_is_conditioned_on_exactly(kind: str) -> None:
    prior, count = build(kind), 8000
    found = completions(prior, PREFIX[kind], count)
    assert found.exact
    torch.testing.assert_close(found.log_weight, found.log_weight[:1].expand(count))
    expected = count * conditional(prior, PREFIX[kind])
    counts = torch.bincount(numbered(found.latents), minlength=len(expected))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    # Pearson's test at level 1e-4.
    statistic = ((counts - expected)[possible].square() / expected[possible]).sum().item()
    assert statistic < chi2.isf(1e-4, int(possible.sum()) - 1)


@every_kind
def test_otherwise_weighted_draws_have_the_conditional_distribution(kind: str) -> None:
    prior, count = build(kind), 8000
    found = completions(prior, SUFFIX[kind], count)
    assert not found.exact
    expected = conditional(prior, SUFFIX[kind])
    weights = found.log_weight.double().softmax(dim=0)
    shares = torch.zeros(len(expected), dtype=torch.float64)
    shares.index_add_(0, numbered(found.latents), weights)
    # Four and a half standard errors of a self-normalised mean: sqrt(sum w^2 (1[x] - p)^2).
    hits = torch.nn.functional.one_hot(numbered(found.latents), len(expected))
    error = (weights.square()[:, None] * (hits - expected).square()).sum(dim=0).sqrt()
    assert ((shares - expected).abs() <= 4.5 * error + 1e-9).all()
    assert expected.max() < 0.9 and weights.max() < 0.01


@every_kind
def test_weights_are_the_probability_of_known_cells(kind: str) -> None:
    prior, count = build(kind), 5
    everything = completions(prior, [1] * 6, count)
    labels = torch.ones(count, dtype=torch.int64)
    assert torch.equal(everything.latents, known(prior, [1] * 6, count).latents)
    whole = prior.log_prob(everything.latents, labels).detach()
    torch.testing.assert_close(everything.log_weight, whole)
    nothing = completions(prior, [0] * 6, count)
    assert torch.equal(nothing.log_weight, torch.zeros(count)) and nothing.exact
    uniforms = torch.rand(count, *prior.noise_shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(nothing.latents, prior.sample(labels, uniforms, SamplerSettings()))


@every_kind
def test_guided_completions_keep_what_is_known(kind: str) -> None:
    prior = build(kind)
    uniforms, labels = torch.rand(4, *prior.noise_shape), torch.tensor([0, 1, 2, 0])
    how = SamplerSettings(guidance=2.0, guidance_schedule="linear", min_p=0.1)
    mask = [0, 1, 0, 0, 1, 1]
    drawn = prior.complete(labels, uniforms, how, known(prior, mask, 4)).latents.flatten(1)
    assert torch.equal(drawn[:, [1, 4, 5]], LATENTS[[1, 4, 5]].expand(4, 3))


def test_continuous_cells_are_forced_whole() -> None:
    raw = {
        "prior": {"kind": "transformer", **PRIORS["transformer"]},
        "head": {"kind": "mixture", "components": 2, "std_floor": 0.1, "guidance_candidates": 2},
    }
    params = parse_params(SecondStageParams, raw, source="test", strict=True)
    spec = LatentSpec("continuous", 2, 3, channels=4)
    prior = build_second_stage(params, spec, num_classes=0).eval()
    latents = torch.randn(5, 4, 2, 3)
    mask = torch.tensor([[True, False, True], [False, False, True]]).expand(5, 2, 3)
    uniforms = torch.rand(5, *prior.noise_shape)
    found = prior.complete(None, uniforms, SamplerSettings(), KnownLatents(latents, mask))
    same = found.latents == latents
    assert torch.equal(same, mask.unsqueeze(1).expand_as(same)) and not found.exact


@pytest.mark.parametrize("kind", ["uniform", "standard_normal"])
def test_where_cells_are_independent_any_mask_is_exact(kind: str) -> None:
    spec = {
        "uniform": LatentSpec("codes", 2, 3, num_codes=5),
        "standard_normal": LatentSpec("continuous", 2, 3, channels=4),
    }[kind]
    raw = {"prior": {"kind": kind}, "head": {"kind": "categorical", "tied": False}}
    params = parse_params(SecondStageParams, raw, source="test", strict=True)
    prior = build_second_stage(params, spec, num_classes=0)
    uniforms = torch.rand(7, *prior.noise_shape)
    drawn = prior.sample(None, uniforms, SamplerSettings())
    given = torch.flip(drawn, dims=[0])
    mask = torch.rand(7, 2, 3) < 0.5
    found = prior.complete(None, uniforms, SamplerSettings(), KnownLatents(given, mask))
    wide = mask if kind == "uniform" else mask.unsqueeze(1)
    assert found.exact and torch.equal(found.latents, torch.where(wide, given, drawn))


def test_a_prior_that_cannot_says_so() -> None:
    prior = build("transformer")
    with pytest.raises(ParamsError, match="TransformerPrior draws whole grids only"):
        Prior.complete(
            prior, None, torch.rand(1, 6, 1), SamplerSettings(), known(prior, [0] * 6, 1)
        )
