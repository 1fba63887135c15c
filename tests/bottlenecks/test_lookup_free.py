"""Lookup-free quantization: signs and bits, and both entropies against full enumeration."""

import math

import pytest
import torch
from torch.distributions import Bernoulli

from stages.bottlenecks.lookup_free import entropies
from tests.bottlenecks.examples import FEATURES, example


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def quantizer(**changes):
    """Features, one map per bit, are the numbers themselves."""
    bottleneck = example("lookup_free", **changes)
    bottleneck.project_in = bottleneck.project_out = torch.nn.Identity()
    return bottleneck


def alphabet(num_bits):
    """All codes' vectors, (2^bits, bits), in the order of the codes."""
    codes = range(2**num_bits)
    return torch.tensor(
        [[1.0 if code >> bit & 1 else -1.0 for bit in range(num_bits)] for code in codes]
    )


def by_enumeration(vectors, temperature):
    """The entropies of softmax(-|z - c|^2 / temperature) over all codes."""
    codes = alphabet(vectors.shape[1]).double()
    squares = (vectors.double()[:, None] - codes[None]).square().sum(dim=2)
    chances = torch.softmax(-squares / temperature, dim=1)
    mean = chances.mean(dim=0)
    of_each = torch.special.entr(chances).sum(dim=1).mean()
    return of_each, torch.special.entr(mean).sum()


@pytest.mark.parametrize("num_bits", [1, 2, 3, 6])
def test_entropies_are_those_of_the_whole_alphabet(num_bits):
    vectors = torch.randn(9, num_bits, generator=stream()).double()
    for temperature in (0.3, 1.0, 4.0):
        found = entropies(4 / temperature * vectors)
        torch.testing.assert_close(found, by_enumeration(vectors, temperature))


def test_gradients_of_the_entropies_are_those_of_the_whole_alphabet():
    vectors = torch.randn(9, 5, generator=stream()).double().requires_grad_()
    for which in (0, 1):
        [found] = torch.autograd.grad(entropies(4 / 0.7 * vectors)[which], vectors)
        [expected] = torch.autograd.grad(by_enumeration(vectors, 0.7)[which], vectors)
        torch.testing.assert_close(found, expected)


def test_the_first_entropy_is_that_of_independent_bits():
    logits = torch.randn(11, 4, generator=stream())
    expected = Bernoulli(logits=logits).entropy().sum(dim=1).mean()
    torch.testing.assert_close(entropies(logits)[0], expected)


def test_limits_of_the_entropies():
    # Undecided: every choice is uniform, and so is their mean.
    undecided = entropies(torch.zeros(3, 6))
    assert all(value.item() == pytest.approx(6 * math.log(2)) for value in undecided)
    # Sure of each, and all four codes in use.
    of_each, of_all = entropies(100 * alphabet(2))
    assert of_each.item() == pytest.approx(0, abs=1e-6)
    assert of_all.item() == pytest.approx(2 * math.log(2))
    # Sure of the same one.
    of_each, of_all = entropies(100 * torch.ones(5, 3))
    assert of_each.item() == pytest.approx(0, abs=1e-6)
    assert of_all.item() == pytest.approx(0, abs=1e-6)


def test_far_away_numbers_give_finite_gradients():
    logits = (1e4 * torch.randn(7, 6, generator=stream())).requires_grad_()
    of_each, of_all = entropies(logits)
    (of_each - of_all).backward()
    assert logits.grad.isfinite().all()


def test_large_alphabets_need_no_table_of_vectors_by_codes():
    # 2^18 codes by 600 vectors would be 1.2 GB of float64.
    logits = torch.zeros(600, 18)
    logits[:, 0] = 50.0
    of_each, of_all = entropies(logits)
    assert of_each.item() == pytest.approx(17 * math.log(2), rel=1e-5)
    assert of_all.item() == pytest.approx(17 * math.log(2), rel=1e-5)


def test_codes_and_signs_of_the_whole_alphabet_round_trip():
    bottleneck = quantizer(num_bits=5)
    codes = torch.arange(32).view(-1, 1, 1)
    signs = bottleneck.decode(codes)
    assert torch.equal(signs.flatten(1), alphabet(5))
    assert torch.equal(bottleneck.encode(0.1 * signs), codes)


def test_the_code_is_the_nearest_of_all():
    bottleneck, features = quantizer(), torch.randn(2, 5, 3, 4, generator=stream())
    vectors = features.permute(0, 2, 3, 1)
    squares = (vectors[..., None, :] - alphabet(5)).square().sum(dim=-1)
    assert torch.equal(bottleneck.encode(features), squares.argmin(dim=-1))


def test_the_loss_is_the_weighted_sum_of_its_three_parts():
    weights = {
        "commitment_weight": 0.5,
        "sample_entropy_weight": 0.2,
        "batch_entropy_weight": 0.3,
    }
    features = torch.randn(2, 5, 3, 4, generator=stream())
    vectors = features.permute(0, 2, 3, 1).reshape(-1, 5)
    of_each, of_all = by_enumeration(vectors, 1.5)
    commitment = (vectors - vectors.sign()).square().mean()
    expected = 0.5 * commitment + 0.2 * of_each + 0.3 * (5 * math.log(2) - of_all)
    result = quantizer(temperature=1.5, **weights)(features)
    assert result.auxiliary.item() == pytest.approx(expected.item(), rel=1e-5)
    assert result.statistics["batch_entropy"].item() == pytest.approx(of_all.item(), rel=1e-5)
    without = dict.fromkeys(weights, 0.0)
    assert quantizer(**without)(features).auxiliary == 0


def test_the_gradient_passes_straight_through():
    weights = ("commitment_weight", "sample_entropy_weight", "batch_entropy_weight")
    bottleneck = quantizer(**dict.fromkeys(weights, 0.0))
    features = torch.randn(2, 5, 3, 4, requires_grad=True)
    cost = torch.randn(2, 5, 3, 4)
    result = bottleneck(features)
    torch.testing.assert_close(result.features, features.detach().sign())
    (result.features * cost).sum().backward()
    torch.testing.assert_close(features.grad, cost)


def test_training_and_decoding_give_the_decoder_the_same():
    bottleneck, features = example("lookup_free"), torch.randn(3, *FEATURES)
    result = bottleneck(features)
    assert torch.equal(result.codes, bottleneck.encode(features))
    torch.testing.assert_close(result.features, bottleneck.decode(result.codes))
    assert bottleneck.spec.num_codes == 32
