"""The stack of codes: order of its grids, sums, residuals that fall, followers of every level."""

import itertools

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.shapes import FeatureShape
from tests.bottlenecks.examples import FEATURES, build, example

either = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def stack(**changes):
    """A residual quantizer whose features, of 5 maps, are the vectors themselves."""
    bottleneck = example("residual_vq", **changes)
    bottleneck.project_in = bottleneck.project_out = torch.nn.Identity()
    return bottleneck


def some_features(count=30, seed=0):
    return torch.randn(count, 5, FEATURES.grid_height, FEATURES.grid_width, generator=stream(seed))


def book(bottleneck, level):
    return bottleneck.codebooks[level % len(bottleneck.codebooks)].entries


def slow_codes(bottleneck, vector):
    """Level by level, by brute force, for one vector."""
    codes = []
    for level in range(bottleneck.options.depth):
        entries = book(bottleneck, level)
        codes.append((entries - vector).square().sum(dim=1).argmin().item())
        vector = vector - entries[codes[-1]]
    return codes


def test_the_grids_stand_end_to_end_first_codes_first():
    spec = example("residual_vq").options.latent_spec(FeatureShape(6, 2, 3))
    assert (spec.grid_height, spec.grid_width, spec.num_codes) == (1, 24, 7)
    assert spec.parts == ((2, 3),) * 4
    assert spec.tokens == sum(rows * columns for rows, columns in spec.parts)


@either
def test_only_codebooks_of_their_own_are_counted_apart(shared):
    bottleneck = stack(shared=shared)
    assert bottleneck.codebook_parts == (() if shared else bottleneck.spec.parts)


@either
def test_codes_are_those_of_a_slow_loop(shared):
    bottleneck, features = stack(shared=shared), some_features(2)
    codes = bottleneck.encode(features)
    for image, row, column in ((0, 0, 1), (1, 1, 2)):
        found = codes[image, 0, row * 3 + column :: 6].tolist()
        assert found == slow_codes(bottleneck, features[image, :, row, column])


@either
def test_the_sum_of_the_entries_is_decoded(shared):
    bottleneck = stack(shared=shared)
    codes = torch.randint(7, (2, 1, 24), generator=stream())
    decoded = bottleneck.decode(codes)
    expected = sum(book(bottleneck, level)[codes[1, 0, level * 6 + 5]] for level in range(4))
    torch.testing.assert_close(decoded[1, :, 1, 2], expected)


@either
def test_what_is_left_falls_with_every_level_after_a_start(shared):
    bottleneck, features = stack(shared=shared, num_codes=16, kmeans_vectors=500), some_features(60)
    bottleneck.start_from_data(features, stream())
    statistics = bottleneck.eval()(features).statistics
    left = [statistics[f"residual_{level}"].item() for level in range(1, 5)]
    squares = [features.square().mean().item(), *left]
    assert all(after < 0.95 * before for before, after in itertools.pairwise(squares))


def test_more_levels_serve_the_features_better():
    errors = []
    for depth in (1, 2, 4):
        bottleneck, features = stack(depth=depth), some_features(60)
        bottleneck.start_from_data(features, stream())
        decoded = bottleneck.decode(bottleneck.encode(features))
        errors.append((decoded - features).square().mean().item())
    assert errors[0] > errors[1] > errors[2]


@either
def test_the_loss_holds_every_partial_sum_near_the_vector(shared):
    bottleneck = stack(shared=shared, commitment_weight=0.3).eval()
    features = some_features(2).requires_grad_()
    result = bottleneck(features)
    losses, gradient = [], torch.zeros_like(features)
    for level in range(1, 5):
        partial = torch.zeros_like(features)
        for below in range(level):
            codes = result.codes[:, 0, below * 6 : (below + 1) * 6].view(2, 2, 3)
            partial = partial + book(bottleneck, below)[codes].permute(0, 3, 1, 2)
        losses.append((features - partial).square().mean().item())
        assert result.statistics[f"residual_{level}"].item() == pytest.approx(losses[-1], rel=1e-4)
        gradient += 0.3 * 2 * (features.detach() - partial) / features.numel()
    assert result.auxiliary.item() == pytest.approx(0.3 * sum(losses), rel=1e-4)
    result.auxiliary.backward()
    torch.testing.assert_close(features.grad, gradient)


@either
def test_codebooks_follow_the_residuals_that_chose_them(shared):
    bottleneck, features = stack(shared=shared, decay=0.0, revive_below=0.0), some_features(2)
    before = [codebook.entries.clone() for codebook in bottleneck.codebooks]
    codes = bottleneck(features).codes[:, 0].view(2, 4, 2, 3)
    bottleneck.after_step(stream())
    mine = [[] for _ in before]
    for image in range(2):
        for row in range(2):
            for column in range(3):
                rest = features[image, :, row, column]
                for level in range(4):
                    code = codes[image, level, row, column].item()
                    mine[level % len(before)].append((code, rest))
                    rest = rest - before[level % len(before)][code]
    for codebook, seen in zip(bottleneck.codebooks, mine, strict=True):
        assert codebook.cluster_size.sum() == len(seen) == (48 if shared else 12)
        for code in {code for code, _ in seen}:
            mean = torch.stack([rest for own, rest in seen if own == code]).mean(dim=0)
            torch.testing.assert_close(codebook.entries[code], mean, atol=1e-4, rtol=1e-4)


@either
def test_every_level_starts_on_what_the_levels_before_leave(shared):
    bottleneck, features = stack(shared=shared, num_codes=30, depth=3), 10 * some_features(60)
    bottleneck.start_from_data(features, stream())
    entries = torch.cat([codebook.entries for codebook in bottleneck.codebooks])
    lengths = entries.norm(dim=1).view(3, -1).mean(dim=1)
    assert lengths[1] < 0.8 * lengths[0] and lengths[2] < 0.8 * lengths[1]


def test_a_shared_codebook_needs_an_entry_for_every_level():
    with pytest.raises(ParamsError, match=r"num_codes must be at least depth \(4\).*got 3"):
        example("residual_vq", shared=True, num_codes=3)
    assert example("residual_vq", shared=False, num_codes=3).spec.num_codes == 3


@either
def test_dead_codes_of_every_level_come_to_use(shared):
    bottleneck = stack(shared=shared, decay=0.0, revive_below=0.5)
    for codebook in bottleneck.codebooks:
        codebook.entries[0], codebook.entries[1:] = 0, 1000
    features = some_features(2)
    bottleneck(features)
    bottleneck.after_step(stream())
    codes = bottleneck.eval()(features).codes[:, 0].view(2, 4, 6)
    for codebook in bottleneck.codebooks:
        assert codebook.entries.abs().max() < 10
    # A shared codebook sees a vector once per level, and may take it twice.
    assert len(codes[:, 0].unique()) >= (4 if shared else 6)


def test_one_level_is_plain_vector_quantization():
    features = some_features(30)
    one, other = stack(depth=1), build({"kind": "ema_vq"} | _plain_options())
    other.project_in = other.project_out = torch.nn.Identity()
    results = []
    for bottleneck in (one, other):
        bottleneck.start_from_data(features, stream())
        for step in range(3):
            result = bottleneck(some_features(seed=step))
            bottleneck.after_step(stream(step))
        results.append(result)
    assert torch.equal(results[0].codes.view(30, 2, 3), results[1].codes)
    torch.testing.assert_close(results[0].features, results[1].features)
    torch.testing.assert_close(results[0].auxiliary, results[1].auxiliary)


def _plain_options():
    values = example("residual_vq").options.model_dump()
    return {
        name: value for name, value in values.items() if name not in ("kind", "depth", "shared")
    }
