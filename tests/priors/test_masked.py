"""The masked prior: its bound against all orders, its parallel decoding, its masks."""

import itertools
import math

import pytest
import torch
from scipy.stats import chi2

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.priors.masked import MaskedOptions, MaskedPrior
from tests.priors.sections import SIZES

NUM_CLASSES, HEIGHT, WIDTH, CODES = 2, 1, 4, 3
CELLS = HEIGHT * WIDTH
OPTIONS = {
    **SIZES,
    "kind": "masked",
    "dropout": 0.0,
    "layers": 1,
    "width": 12,
    "num_heads": 3,
    "masking": "cosine",
    "label_smoothing": 0.0,
    "decoding_steps": 3,
    "choice_temperature": 1.0,
    "bound_masks": 8,
}
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)


@pytest.fixture(autouse=True)
def one_stream():
    """Every test has the same draws alone as in company."""
    torch.manual_seed(5)


def settings(**changes):
    return SamplerSettings(**{**vars(MODEL), **changes})


def build(num_classes=NUM_CLASSES, height=HEIGHT, width=WIDTH, loudness=0.4, **changes):
    torch.manual_seed(0)
    spec = LatentSpec("codes", height, width, num_codes=CODES)
    options = MaskedOptions(**{**OPTIONS, **changes})
    prior = MaskedPrior(
        options, CategoricalOptions(kind="categorical", tied=False), spec, num_classes
    )
    for parameter in prior.parameters():
        parameter.data.add_(loudness * torch.randn_like(parameter))
    return prior.eval()


def all_grids():
    grids = list(itertools.product(range(CODES), repeat=CELLS))
    return torch.tensor(grids).view(-1, HEIGHT, WIDTH)


def nats_where_hidden(prior, grids, labels):
    """log p(code of every cell given the others), by the set that is hidden: (grids, cells)."""
    found = {}
    for number in range(1, CELLS + 1):
        for cells in itertools.combinations(range(CELLS), number):
            hidden = torch.zeros(len(grids), CELLS, dtype=torch.bool)
            hidden[:, cells] = True
            states = prior.states(grids.flatten(1), hidden, labels)
            found[cells] = prior.head.log_prob(states, grids.flatten(1)).double()
    return found


def nats_by_order(prior, grids, labels):
    """log p(grid given an order) of all orders: (orders, grids)."""
    found, orders = nats_where_hidden(prior, grids, labels), []
    for order in itertools.permutations(range(CELLS)):
        steps = [found[tuple(sorted(order[i:]))][:, order[i]] for i in range(CELLS)]
        orders.append(torch.stack(steps).sum(0))
    return torch.stack(orders)


@torch.no_grad()
def test_the_bound_is_the_mean_over_all_orders():
    prior, grids = build(), all_grids()
    labels = torch.ones(len(grids), dtype=torch.int64)
    exact = nats_by_order(prior, grids, labels).mean(0)
    sets = [c for n in range(1, CELLS + 1) for c in itertools.combinations(range(CELLS), n)]
    # Every number of hidden cells equally often: 12 is a multiple of 4, 6, 4 and 1.
    masks = [m for cells in sets for m in [cells] * (12 // math.comb(CELLS, len(cells)))]
    prior.bound_masks = torch.stack(
        [torch.isin(torch.arange(CELLS), torch.tensor(m)) for m in masks]
    )
    torch.testing.assert_close(prior.log_prob(grids, labels).double(), exact, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_grids_of_all_orders_sum_to_one_and_lie_above_the_bound():
    prior, grids = build(), all_grids()
    orders = nats_by_order(prior, grids, torch.zeros(len(grids), dtype=torch.int64))
    mixture = torch.logsumexp(orders, dim=0) - math.log(len(orders))
    assert mixture.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert orders.exp().sum(1).tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    assert (orders.mean(0) <= mixture).all() and (mixture - orders.mean(0)).max() > 0.01


@torch.no_grad()
def test_many_masks_come_to_the_mean_over_all_orders():
    prior, grids = build(bound_masks=400), all_grids()[::20]
    labels = torch.zeros(len(grids), dtype=torch.int64)
    exact = nats_by_order(prior, grids, labels).mean(0)
    found = []
    for piece in prior.bound_masks.split(40):
        prior.bound_masks = piece
        found.append(prior.log_prob(grids, labels).double())
    means = torch.stack(found)
    # Five standard errors of ten means, as these masks were drawn; strata only make them smaller.
    error = means.std(0) / len(means) ** 0.5
    assert ((means.mean(0) - exact).abs() < 5 * error + 1e-3).all()


def test_the_bound_looks_at_every_number_of_hidden_cells_equally_often():
    masks = build(height=2, width=3, bound_masks=18).bound_masks
    assert torch.bincount(masks.sum(1), minlength=7).tolist() == [0, 3, 3, 3, 3, 3, 3]
    assert torch.equal(masks, build(height=2, width=3, bound_masks=18).bound_masks)


def test_a_hidden_code_is_not_looked_at_and_a_known_one_is():
    prior = build()
    tokens, hidden = torch.tensor([[0, 1, 2, 0]]), torch.tensor([[True, False, True, False]])
    states = prior.states(tokens, hidden, torch.tensor([1]))
    for cell in range(CELLS):
        other = tokens.clone()
        other[0, cell] = (other[0, cell] + 1) % CODES
        same = torch.equal(prior.states(other, hidden, torch.tensor([1])), states)
        assert same == bool(hidden[0, cell])


@torch.no_grad()
def test_one_cell_at_a_time_in_chance_order_draws_the_mixture_over_orders():
    prior, count = build(decoding_steps=9, choice_temperature=1e6), 10_000
    labels = torch.ones(count, dtype=torch.int64)
    codes = prior.sample(labels, torch.rand(count, *prior.noise_shape), MODEL)
    place = CODES ** torch.arange(CELLS - 1, -1, -1)
    counts = torch.bincount((codes.flatten(1) * place).sum(1), minlength=81).double()
    orders = nats_by_order(prior, all_grids(), torch.ones(81, dtype=torch.int64))
    expected = count * orders.exp().mean(0)
    common = expected > 5
    seen = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum().clamp(min=1e-9)[None]])
    # Pearson's test at level 1e-4.
    assert ((seen - wanted).square() / wanted).sum().item() < chi2.isf(1e-4, len(seen) - 1)


def test_one_step_draws_every_cell_from_its_own_distribution():
    prior = build(decoding_steps=1)
    uniforms, labels = torch.rand(5, *prior.noise_shape), torch.tensor([0, 1, 1, 0, 1])
    hidden = torch.ones(5, CELLS, dtype=torch.bool)
    states = prior.states(torch.zeros(5, CELLS, dtype=torch.int64), hidden, labels)
    logits = prior.head.logits(states).double().softmax(-1).cumsum(-1)
    expected = (logits < uniforms[:, :, :1]).sum(-1)
    assert torch.equal(prior.sample(labels, uniforms, MODEL).flatten(1), expected)


def test_without_chance_the_surest_codes_are_kept(monkeypatch):
    prior = build(height=2, width=3, choice_temperature=0.0)
    seen = []
    inner = prior.states
    monkeypatch.setattr(
        prior, "states", lambda *given: seen.append((*given, inner(*given))) or seen[-1][-1]
    )
    labels = torch.tensor([0, 1])
    prior.sample(labels, torch.rand(2, *prior.noise_shape), MODEL)
    assert [int(hidden[0].sum()) for _, hidden, _, _ in seen] == [
        6,
        *prior.hidden_after_steps()[:-1],
    ]
    (_, _, _, states), (tokens, hidden, _, _) = seen[:2]
    sureness = prior.head.log_prob(states, tokens)
    for row in range(2):
        kept, left = sureness[row][~hidden[row]], sureness[row][hidden[row]]
        # Hidden cells hold the codes drawn there: they were less sure, each of them.
        assert kept.min() >= left.max()


def test_hidden_cells_follow_a_cosine_and_every_step_finds_some():
    assert build(height=4, width=4, decoding_steps=8).hidden_after_steps() == [
        15, 14, 13, 11, 8, 6, 3, 0,
    ]  # fmt: skip
    for steps in (1, 2, 5, 12, 40):
        left = build(height=3, width=4, decoding_steps=steps).hidden_after_steps()
        assert len(left) == min(steps, 12) and left[-1] == 0
        assert all(before > after for before, after in itertools.pairwise([12, *left]))


def test_an_image_depends_on_its_own_numbers_only():
    prior, labels = build(height=2, width=3), torch.tensor([0, 1, 1, 0, 1])
    uniforms, order = torch.rand(5, *prior.noise_shape), torch.tensor([3, 0, 4, 1, 2])
    for guidance in (1.0, 2.0):
        codes = prior.sample(labels, uniforms, settings(guidance=guidance))
        again = prior.sample(labels[order], uniforms[order], settings(guidance=guidance))
        assert torch.equal(again, codes[order])


def test_guidance_0_ignores_the_class_and_needs_what_it_mixes():
    prior = build(choice_temperature=1e6)
    uniforms, labels = torch.rand(6, *prior.noise_shape), torch.tensor([0, 1, 0, 1, 0, 1])
    # Where chance alone orders the cells, sureness (of the class) decides nothing.
    free = [prior.sample(y, uniforms, settings(guidance=0.0)) for y in (labels, 1 - labels)]
    assert torch.equal(*free) and torch.equal(free[0], prior.sample(None, uniforms, MODEL))
    for other, given in ((build(num_classes=0), None), (build(label_dropout=0.0), labels)):
        with pytest.raises(ParamsError, match=r"sampling\.guidance: must be 1"):
            other.sample(given, uniforms, settings(guidance=2.0))


@torch.no_grad()
def test_uniform_masking_trains_the_bound_itself():
    prior = build(masking="uniform", label_dropout=0.0)
    grids = all_grids()[17:18].expand(20_000, HEIGHT, WIDTH)
    labels = torch.zeros(20_000, dtype=torch.int64)
    torch.manual_seed(1)
    losses = torch.stack(
        [prior.loss(g, y) for g, y in zip(grids.split(500), labels.split(500), strict=True)]
    )
    exact = -nats_by_order(prior, grids[:1], labels[:1]).mean() / CELLS
    error = 4 * losses.std().item() / len(losses) ** 0.5
    assert losses.mean().item() == pytest.approx(exact.item(), abs=error)


@torch.no_grad()
def test_cosine_masking_hides_many_and_smoothing_asks_for_any_code():
    prior = build(height=4, width=5)
    torch.manual_seed(1)
    hidden = prior._hidden_by_chance(torch.zeros(4000, 20, dtype=torch.int64)).double()
    # The mean of cos(pi u / 2) is 2 / pi; rounding up adds half a cell. Four standard errors.
    assert hidden.mean().item() == pytest.approx(2 / math.pi + 0.025, abs=4 * 0.31 / 4000**0.5)
    assert hidden.sum(1).min() >= 1
    flat, sharp = build(label_smoothing=0.5, loudness=0.0), build(label_smoothing=0.5)
    grids, labels = all_grids(), torch.zeros(81, dtype=torch.int64)
    assert flat.loss(grids, labels).item() == pytest.approx(math.log(CODES), abs=0.02)
    plain = build()
    torch.manual_seed(2)
    smoothed = torch.stack([sharp.loss(grids, labels) for _ in range(40)]).mean()
    # All grids together: asking for any code is what the plain loss does already.
    torch.manual_seed(2)
    expected = torch.stack([plain.loss(grids, labels) for _ in range(40)]).mean()
    assert smoothed.item() == pytest.approx(expected.item(), abs=0.05)


def test_it_learns_a_distribution_it_is_shown():
    prior = build(loudness=0.1, bound_masks=16).train()
    # Class 0 is always the grid 0 1 2 0, class 1 the grid 2 2 1 0 or 2 2 0 0: log 2 nats.
    grids = torch.tensor([[[0, 1, 2, 0]], [[0, 1, 2, 0]], [[2, 2, 1, 0]], [[2, 2, 0, 0]]])
    labels = torch.tensor([0, 0, 1, 1])
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(120):
        optimizer.zero_grad()
        prior.loss(grids.repeat(8, 1, 1), labels.repeat(8)).backward()
        optimizer.step()
    nats = -prior.eval().log_prob(grids, labels).detach()
    torch.testing.assert_close(nats, torch.tensor([0.0, 0.0, 0.693, 0.693]), atol=0.15, rtol=0)
    drawn = prior.sample(torch.zeros(50).long(), torch.rand(50, *prior.noise_shape), MODEL)
    assert (drawn == grids[0]).double().mean() > 0.95
