"""Quantizers with a learned codebook against the textbook: losses, gradient, start, revival."""

import pytest
import torch

from tests.bottlenecks.examples import FEATURES, example

SINGLE = ["vq", "ema_vq", "cosine_vq"]
single = pytest.mark.parametrize("kind", SINGLE)
plain = pytest.mark.parametrize("kind", ["vq", "ema_vq"])
every = pytest.mark.parametrize("kind", [*SINGLE, "residual_vq"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def without_projections(bottleneck):
    """Features are the vectors themselves."""
    bottleneck.project_in = bottleneck.project_out = torch.nn.Identity()
    return bottleneck


def entries(bottleneck):
    """The codebook, to be read or changed in place."""
    codebook = bottleneck.codebook
    return codebook.data if isinstance(codebook, torch.Tensor) else codebook.entries


def put_out_of_reach(bottleneck):
    """All entries but the first where no vector chooses them."""
    book = entries(bottleneck)
    book[1:] = -book[0] if bottleneck.options.kind == "cosine_vq" else book[1:] + 1000


def grid_of(vectors):
    """Vectors (2 * 2 * 3, dim) as features (2, dim, 2, 3)."""
    return vectors.view(2, FEATURES.grid_height, FEATURES.grid_width, -1).permute(0, 3, 1, 2)


@single
def test_codes_and_vectors_round_trip(kind):
    bottleneck = without_projections(example(kind))
    codes = torch.randint(7, (2, 2, 3), generator=stream())
    assert torch.equal(bottleneck.encode(bottleneck.decode(codes)), codes)


@every
@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_training_and_decoding_give_the_decoder_the_same(kind, gradient):
    bottleneck = example(kind, gradient=gradient).eval()
    features = torch.randn(2, *FEATURES)
    result = bottleneck(features)
    assert torch.equal(result.codes, bottleneck.encode(features))
    torch.testing.assert_close(result.features, bottleneck.decode(result.codes))


@single
def test_at_a_codebook_entry_nothing_is_lost(kind):
    bottleneck = without_projections(example(kind))
    features = bottleneck.decode(torch.randint(7, (2, 2, 3), generator=stream())).detach()
    result = bottleneck(features)
    assert result.auxiliary.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(result.features, features)


@pytest.mark.parametrize("kind", ["vq", "ema_vq", "residual_vq"])
def test_the_gradient_passes_straight_through(kind):
    bottleneck = without_projections(example(kind, commitment_weight=0.0))
    features = torch.randn(2, 5, 2, 3, requires_grad=True)
    cost = torch.randn(2, 5, 2, 3)
    (bottleneck(features).features * cost).sum().backward()
    torch.testing.assert_close(features.grad, cost)


@pytest.mark.parametrize("kind", ["vq", "ema_vq", "residual_vq"])
def test_the_gradient_passes_by_rotation(kind):
    bottleneck = without_projections(example(kind, commitment_weight=0.0, gradient="rotation"))
    features = torch.randn(2, 5, 2, 3, requires_grad=True)
    cost = torch.randn(2, 5, 2, 3)
    result = bottleneck(features)
    (result.features * cost).sum().backward()
    lengths = result.features.detach().norm(dim=1) / features.detach().norm(dim=1)
    torch.testing.assert_close(features.grad.norm(dim=1), lengths * cost.norm(dim=1))
    at_entry = torch.cosine_similarity(cost, result.features.detach(), dim=1)
    at_vector = torch.cosine_similarity(features.grad, features.detach(), dim=1)
    torch.testing.assert_close(at_vector, at_entry, atol=1e-5, rtol=1e-5)


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


def test_the_loss_of_ema_vq_pulls_vectors_only():
    bottleneck = without_projections(example("ema_vq", commitment_weight=0.25))
    vectors = torch.randn(12, 5, generator=stream())
    features = grid_of(vectors).clone().requires_grad_()
    before = entries(bottleneck).clone()
    result = bottleneck(features)
    result.auxiliary.backward()
    pull = 2 * (vectors - before[result.codes.flatten()]) / vectors.numel()
    torch.testing.assert_close(features.grad, grid_of(0.25 * pull))


def test_the_loss_of_cosine_vq_is_of_angles():
    bottleneck = without_projections(example("cosine_vq", commitment_weight=0.25)).eval()
    features = torch.randn(2, 5, 2, 3, generator=stream())
    result = bottleneck(features)
    cosines = torch.cosine_similarity(features, bottleneck.decode(result.codes), dim=1)
    expected = 0.25 * (2 - 2 * cosines).mean().item()
    assert result.auxiliary.item() == pytest.approx(expected, rel=1e-5)


def test_cosine_vq_chooses_by_direction_alone():
    bottleneck = without_projections(example("cosine_vq"))
    features = torch.randn(2, 5, 2, 3, generator=stream())
    cosines = torch.cosine_similarity(
        features[:, None], entries(bottleneck)[None, :, :, None, None], dim=2
    )
    assert torch.equal(bottleneck.encode(features), cosines.argmax(dim=1))
    lengths = torch.rand(2, 1, 2, 3, generator=stream(1)) + 0.01
    assert torch.equal(bottleneck.encode(lengths * features), cosines.argmax(dim=1))


def test_averages_of_directions_are_directions_again():
    bottleneck = without_projections(example("cosine_vq"))
    features = torch.randn(2, 5, 2, 3, generator=stream())
    codes = bottleneck.encode(features)
    decoded = bottleneck.decode(codes)
    bottleneck.codebook.entries *= torch.rand(7, 1, generator=stream(1)) + 0.1
    assert torch.equal(bottleneck.encode(features), codes)
    torch.testing.assert_close(bottleneck.decode(codes), decoded)


def test_cosine_vq_gives_the_decoder_numbers_of_mean_square_one():
    bottleneck = without_projections(example("cosine_vq"))
    vectors = bottleneck.decode(torch.arange(6).view(1, 2, 3))
    torch.testing.assert_close(vectors.square().mean(dim=1), torch.ones(1, 2, 3))


@every
def test_the_quantizer_computes_in_float32_under_autocast(kind):
    bottleneck, features = example(kind).eval(), torch.randn(2, *FEATURES)
    exact = bottleneck(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = bottleneck(features)
        assert torch.equal(bottleneck.encode(features), exact.codes)
    assert mixed.features.dtype == torch.float32
    assert torch.equal(mixed.features, exact.features)


@every
def test_a_start_from_data_serves_the_data_better(kind):
    bottleneck, features = example(kind).eval(), 3 + torch.randn(40, *FEATURES)
    before = bottleneck(features).statistics["commitment"]
    bottleneck.start_from_data(features, stream())
    assert bottleneck(features).statistics["commitment"] < before


@single
def test_dead_codes_move_onto_recent_vectors_and_come_to_use(kind):
    bottleneck = without_projections(example(kind, decay=0.0, revive_below=0.5))
    put_out_of_reach(bottleneck)
    features = grid_of(torch.randn(12, 5, generator=stream()))
    dead = torch.bincount(bottleneck(features).codes.flatten(), minlength=7) == 0
    assert dead.sum() >= 3
    bottleneck.after_step(stream())
    recent = features if kind != "cosine_vq" else features / features.norm(dim=1, keepdim=True)
    moved, seen = entries(bottleneck)[dead], recent.permute(0, 2, 3, 1).reshape(12, 5)
    assert all((seen - entry).abs().max(dim=1).values.min() < 1e-6 for entry in moved)
    assert len(moved.unique(dim=0)) == dead.sum()
    assert len(bottleneck(features).codes.unique()) >= 6


@single
def test_codes_in_use_stay_where_they_are(kind):
    bottleneck = without_projections(example(kind))
    bottleneck(bottleneck.decode(torch.arange(12).view(2, 2, 3) % 7).detach())
    before = entries(bottleneck).clone()
    bottleneck.after_step(stream())
    # Their vectors are the entries themselves, so averages stay, but for rounding and smoothing.
    torch.testing.assert_close(entries(bottleneck), before, atol=1e-4, rtol=1e-4)


@plain
def test_zero_asks_for_no_revival(kind):
    bottleneck = without_projections(example(kind, decay=0.0, revive_below=0.0))
    put_out_of_reach(bottleneck)
    features = grid_of(torch.randn(12, 5, generator=stream()))
    dead = torch.bincount(bottleneck(features).codes.flatten(), minlength=7) == 0
    assert dead.sum() >= 3
    bottleneck.after_step(stream())
    seen = features.permute(0, 2, 3, 1).reshape(12, 5)
    for entry in entries(bottleneck)[dead]:
        assert (seen - entry).abs().max(dim=1).values.min() > 1e-3
