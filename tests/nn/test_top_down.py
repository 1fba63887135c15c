"""The ladder keeps its scale at any depth, and its closed forms are those of plain Gaussians."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from stages.nn.top_down import BottomUp, Grid, TopDown, merging, spreading

GRIDS = (Grid(1, 2, width=6, groups=2), Grid(3, 5, width=10, groups=1), Grid(6, 10, 8, groups=2))
CHANNELS, FEATURES = 3, 7
both_forms = pytest.mark.parametrize("form", ["residual", "absolute"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def ladder(form="residual", grids=GRIDS):
    """Networks whose every weight matters: what starts at zero is drawn."""
    torch.manual_seed(0)
    up, down = BottomUp(FEATURES, grids, blocks=1), TopDown(grids, CHANNELS, form, FEATURES)
    for parameter in [*up.parameters(), *down.parameters()]:
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return up, down


def walk(down, evidence, choose):
    """The way down in plain coordinates: features, and (prior, posterior, z) of every group."""
    groups, left = [], iter(evidence)
    state = down.places[0].expand(len(evidence[0]), -1, -1, -1)
    for index, rung in enumerate(down.groups):
        if index:
            state = down.enlargements[index - 1](state) + down.places[index]
        for group in rung:
            seen_by_prior, seen_by_posterior = group.look(F.silu(state)).chunk(2, dim=1)
            told = group.prior(F.silu(seen_by_prior))
            mean, log_std = told[:, :CHANNELS], told[:, CHANNELS : 2 * CHANNELS]
            log_std = 5 * torch.tanh(log_std / 5)
            told_more = group.posterior(F.silu(seen_by_posterior + next(left)))
            shift, log_scale = told_more.chunk(2, dim=1)
            log_scale = 5 * torch.tanh(log_scale / 5)
            prior = Normal(mean, log_std.exp())
            if group.form == "residual":
                posterior = Normal(mean + shift, (log_std + log_scale).exp())
            else:
                posterior = Normal(shift, log_scale.exp())
            z = choose(prior, posterior)
            groups.append((prior, posterior, z))
            state = state + told[:, 2 * CHANNELS :] + group.project(z)
    return down.project_out(state), groups


def silent(layer):
    with torch.no_grad():
        layer.bias.zero_()
    return layer


def test_merging_sees_every_cell_in_its_place_and_no_other():
    before, after = Grid(6, 10, width=4, groups=1), Grid(3, 5, width=7, groups=1)
    layer, maps = silent(merging(before, after)), torch.randn(2, 4, 6, 10)
    cells = maps.unflatten(3, (5, 2)).unflatten(2, (3, 2))
    by_hand = torch.einsum("bcyixj,ocij->boyx", cells, layer.weight)
    torch.testing.assert_close(layer(maps), by_hand)


def test_spreading_is_a_map_of_the_coarse_cell_for_each_place_in_it():
    before, after = Grid(3, 5, width=4, groups=1), Grid(6, 15, width=7, groups=1)
    layer, maps = silent(spreading(before, after)), torch.randn(2, 4, 3, 5)
    by_hand = torch.einsum("bcyx,coij->boyixj", maps, layer.weight)
    torch.testing.assert_close(layer(maps), by_hand.flatten(4, 5).flatten(2, 3))


def test_grids_without_a_whole_factor_are_reached_by_means_and_copies():
    coarse, fine = Grid(2, 3, width=4, groups=1), Grid(3, 7, width=6, groups=1)
    constant = torch.randn(2, 6, 1, 1).expand(-1, -1, 3, 7)
    merged = merging(fine, coarse)(constant)
    assert merged.shape == (2, 4, 2, 3)
    torch.testing.assert_close(merged, merged[:, :, :1, :1].expand_as(merged))
    spread = spreading(coarse, fine)(torch.arange(3.0).expand(2, 4, 2, 3))
    assert spread.shape == (2, 6, 3, 7)
    torch.testing.assert_close(spread[:, :, :1].expand_as(spread), spread)


@pytest.mark.parametrize("make", [merging, spreading])
def test_changes_of_grid_keep_the_scale(make):
    fine, coarse = Grid(6, 10, width=64, groups=1), Grid(3, 5, width=48, groups=1)
    before, after = (fine, coarse) if make is merging else (coarse, fine)
    result = make(before, after)(torch.randn(16, before.width, before.rows, before.columns))
    assert 0.8 < result.std() < 1.25


def test_evidence_is_on_the_grid_of_its_group():
    up, _ = ladder()
    shapes = [tuple(part.shape) for part in up(torch.randn(4, FEATURES, 6, 10))]
    expected = [(4, g.width // 2, g.rows, g.columns) for g in GRIDS for _ in range(g.groups)]
    assert shapes == expected


@both_forms
def test_kl_and_path_are_those_of_plain_gaussians(form):
    up, down = ladder(form)
    evidence = up(torch.randn(4, FEATURES, 6, 10))
    descent = down.infer(evidence, lambda posterior: posterior.rsample(stream()))
    noise = [
        posterior_noise(q, e) for q, e in zip(descent.posteriors, descent.latents, strict=True)
    ]
    left = iter(noise)
    features, groups = walk(down, evidence, lambda _, q: q.loc + q.scale * next(left))
    torch.testing.assert_close(descent.features, features)
    found = zip(descent.posteriors, descent.latents, groups, strict=True)
    for posterior, latents, (p, q, z) in found:
        torch.testing.assert_close(posterior.kl_per_number(), kl_divergence(q, p))
        torch.testing.assert_close(latents, (z - p.loc) / p.scale)
        assert posterior.kl_per_number().min() > 0


def posterior_noise(posterior, latents):
    return (latents - posterior.mean) / posterior.std


def test_given_latents_are_an_ancestral_path():
    """z_l = mu_p(z_<l) + sigma_p(z_<l) e_l, with a prior that depends on what came before."""
    up, down = ladder()
    evidence = up(torch.randn(4, FEATURES, 6, 10))
    latents = [torch.randn(4, CHANNELS, g.rows, g.columns) for g in GRIDS for _ in range(g.groups)]
    left = iter(latents)
    features, groups = walk(down, evidence, lambda p, _: p.loc + p.scale * next(left))
    torch.testing.assert_close(down.generate(latents), features)
    assert not torch.equal(groups[-1][0].loc[0], groups[-1][0].loc[1])


def test_a_residual_posterior_without_distance_is_the_prior():
    up, down = ladder()
    for rung in down.groups:
        for group in rung:
            for parameter in group.posterior.parameters():
                torch.nn.init.zeros_(parameter)
    descent = down.infer(up(torch.randn(4, FEATURES, 6, 10)), lambda q: q.rsample(stream()))
    assert not any(posterior.kl_per_number().any() for posterior in descent.posteriors)


@both_forms
def test_scales_stay_bounded_whatever_networks_say(form):
    up, down = ladder(form)
    with torch.no_grad():
        for parameter in down.parameters():
            parameter.mul_(50)
    evidence = up(torch.randn(4, FEATURES, 6, 10))
    for posterior in down.infer(evidence, lambda q: q.mean).posteriors:
        # Residual: |d log sigma| <= 5. Absolute: both logarithms are within 5 of zero.
        widest = 10 if form == "residual" else 20
        assert posterior.log_variance.abs().max() <= widest


@pytest.mark.parametrize("depth", [1, 20])
def test_activations_start_at_the_same_scale_at_any_depth(depth):
    grids = (Grid(2, 3, width=32, groups=depth), Grid(4, 6, width=24, groups=depth))
    torch.manual_seed(0)
    up, down = BottomUp(FEATURES, grids, blocks=2), TopDown(grids, CHANNELS, "residual", 16)
    drawn = down.infer(up(torch.randn(8, FEATURES, 4, 6)), lambda q: q.rsample(stream()))
    latents = [torch.randn_like(part) for part in drawn.latents]
    for features in (drawn.features, down.generate(latents)):
        assert 0.5 < features.square().mean().sqrt() < 2
    kl = torch.cat([posterior.kl_per_number().detach().flatten() for posterior in drawn.posteriors])
    assert 0 < kl.mean() < 0.5 and math.isfinite(kl.sum())
