"""Both quantizers against the textbook: losses, straight-through gradient, averages, revival."""

import pytest
import torch

from tests.bottlenecks.examples import FEATURES, example

both = pytest.mark.parametrize("kind", ["vq", "ema_vq"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def without_projections(bottleneck):
    """Features are the vectors themselves."""
    bottleneck.project_in = bottleneck.project_out = torch.nn.Identity()
    return bottleneck


def grid_of(vectors):
    """Vectors (2 * 2 * 3, dim) as features (2, dim, 2, 3)."""
    return vectors.view(2, FEATURES.grid_height, FEATURES.grid_width, -1).permute(0, 3, 1, 2)


@both
def test_codes_and_vectors_round_trip(kind):
    bottleneck = without_projections(example(kind))
    codes = torch.randint(7, (2, 2, 3), generator=stream())
    assert torch.equal(bottleneck.encode(bottleneck.decode(codes)), codes)


@both
def test_training_and_decoding_give_the_decoder_the_same(kind):
    bottleneck = example(kind).eval()
    features = torch.randn(2, *FEATURES)
    result = bottleneck(features)
    assert torch.equal(result.codes, bottleneck.encode(features))
    torch.testing.assert_close(result.features, bottleneck.decode(result.codes))


@both
def test_at_a_codebook_entry_nothing_is_lost(kind):
    bottleneck = without_projections(example(kind))
    features = bottleneck.decode(torch.randint(7, (2, 2, 3), generator=stream())).detach()
    result = bottleneck(features)
    assert result.auxiliary.item() == 0
    torch.testing.assert_close(result.features, features)


@both
def test_the_gradient_passes_straight_through(kind):
    bottleneck = without_projections(example(kind, commitment_weight=0.0))
    features = torch.randn(2, 5, 2, 3, requires_grad=True)
    cost = torch.randn(2, 5, 2, 3)
    (bottleneck(features).features * cost).sum().backward()
    torch.testing.assert_close(features.grad, cost)


def test_losses_of_vq_are_those_of_the_paper():
    bottleneck = without_projections(example("vq", commitment_weight=0.25))
    vectors = torch.randn(12, 5, generator=stream())
    features = grid_of(vectors).clone().requires_grad_()
    result = bottleneck(features)
    chosen = bottleneck.codebook[result.codes.flatten()]
    squares = (vectors - chosen).square().mean()
    assert result.auxiliary.item() == pytest.approx(1.25 * squares.item(), rel=1e-5)
    result.auxiliary.backward()
    pull = 2 * (vectors - chosen).detach() / vectors.numel()
    torch.testing.assert_close(features.grad, grid_of(0.25 * pull))
    expected = torch.zeros(7, 5).index_add(0, result.codes.flatten(), -pull)
    torch.testing.assert_close(bottleneck.codebook.grad, expected)


def test_averages_of_ema_vq_are_those_of_a_slow_loop():
    bottleneck = without_projections(example("ema_vq", decay=0.9))
    sizes = bottleneck.cluster_size.double().tolist()
    sums = bottleneck.vector_sums.double().clone()
    for step in range(4):
        vectors = torch.randn(12, 5, generator=stream(step))
        codes = bottleneck(grid_of(vectors)).codes.flatten().tolist()
        for code in range(7):
            mine = [vectors[i].double() for i in range(12) if codes[i] == code]
            sizes[code] = 0.9 * sizes[code] + 0.1 * len(mine)
            sums[code] = 0.9 * sums[code] + 0.1 * sum(mine, torch.zeros(5))
    total = sum(sizes)
    for code in range(7):
        smoothed = (sizes[code] + 1e-5) / (total + 7 * 1e-5) * total
        expected = (sums[code] / smoothed).float()
        torch.testing.assert_close(bottleneck.codebook[code], expected, atol=1e-5, rtol=1e-4)


@both
def test_the_quantizer_computes_in_float32_under_autocast(kind):
    bottleneck, features = example(kind).eval(), torch.randn(2, *FEATURES)
    exact = bottleneck(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = bottleneck(features)
        assert torch.equal(bottleneck.encode(features), exact.codes)
    assert mixed.features.dtype == torch.float32
    assert torch.equal(mixed.features, exact.features)


@both
def test_a_start_from_data_serves_the_data_better(kind):
    bottleneck, features = example(kind).eval(), 3 + torch.randn(40, *FEATURES)
    before = bottleneck(features).statistics["commitment"]
    bottleneck.start_from_data(features, stream())
    assert bottleneck(features).statistics["commitment"] < before


def test_the_averages_start_in_agreement_with_the_codebook():
    bottleneck = example("ema_vq")
    bottleneck.start_from_data(torch.randn(40, *FEATURES), stream())
    assert bottleneck.cluster_size.sum() == 50
    means = bottleneck.vector_sums / bottleneck.cluster_size[:, None]
    torch.testing.assert_close(means, bottleneck.codebook)


@both
def test_dead_codes_move_onto_recent_vectors_and_come_to_use(kind):
    bottleneck = without_projections(example(kind, decay=0.0, revive_below=0.5))
    with torch.no_grad():
        bottleneck.codebook[1:] += 1000
    vectors = torch.randn(12, 5, generator=stream())
    bottleneck(grid_of(vectors))
    bottleneck.after_step(stream())
    moved = bottleneck.codebook[1:]
    assert all((vectors == entry).all(dim=1).any() for entry in moved)
    assert len(moved.unique(dim=0)) == 6
    assert len(bottleneck(grid_of(vectors)).codes.unique()) >= 6


def test_revival_resets_the_averages_with_the_entry():
    bottleneck = without_projections(example("ema_vq", decay=0.0, revive_below=0.5))
    bottleneck.codebook[1:] += 1000
    bottleneck(grid_of(torch.randn(12, 5, generator=stream())))
    bottleneck.after_step(stream())
    assert torch.allclose(bottleneck.cluster_size[1:], torch.tensor(12 / 7))
    means = bottleneck.vector_sums / bottleneck.cluster_size[:, None]
    torch.testing.assert_close(means[1:], bottleneck.codebook[1:])


@both
def test_codes_in_use_stay_where_they_are(kind):
    bottleneck = without_projections(example(kind))
    codes = torch.arange(12) % 7
    bottleneck(grid_of(bottleneck.codebook.detach()[codes]))
    before = bottleneck.codebook.detach().clone()
    bottleneck.after_step(stream())
    assert torch.equal(bottleneck.codebook, before)


@both
def test_zero_asks_for_no_revival(kind):
    bottleneck = without_projections(example(kind, decay=0.0, revive_below=0.0))
    with torch.no_grad():
        bottleneck.codebook[1:] += 1000
    bottleneck(grid_of(torch.randn(12, 5)))
    before = bottleneck.codebook.detach().clone()
    bottleneck.after_step(stream())
    assert torch.equal(bottleneck.codebook, before)
