"""Laws of every head: densities, draws, guidance."""

import math

import pytest
import torch
from scipy.stats import chi2
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import validate
from stages.heads.base import HeadOptions, SamplerSettings
from stages.heads.categorical import CategoricalHead, CategoricalOptions
from stages.heads.factorised import FactorisedHead, FactorisedOptions
from stages.heads.mixture import DiagonalMixture, MixtureHead, MixtureOptions

WIDTH = 6
CODES = LatentSpec("codes", 2, 3, num_codes=5)
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)


def settings(**changes):
    return SamplerSettings(**{**vars(MODEL), **changes})


def categorical():
    torch.manual_seed(0)
    head = CategoricalHead(CategoricalOptions(kind="categorical", tied=False), CODES, WIDTH)
    return loud(head)


def factorised(num_codes=6, first=2):
    torch.manual_seed(0)
    spec = LatentSpec("codes", 2, 3, num_codes=num_codes)
    return loud(FactorisedHead(FactorisedOptions(kind="factorised", first=first), spec, WIDTH))


def mixture(channels=2, components=3, candidates=4):
    torch.manual_seed(0)
    options = MixtureOptions(
        kind="mixture", components=components, std_floor=0.05, guidance_candidates=candidates
    )
    spec = LatentSpec("continuous", 2, 3, channels=channels)
    return loud(MixtureHead(options, spec, WIDTH))


def loud(head):
    for parameter in head.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    return head


def rows(vector, count):
    return vector.expand(count, WIDTH)


def chi_square_passes(counts, probabilities, level=1e-4):
    """Pearson's test at the stated level: true frequencies fail once in 1/level seeds."""
    expected = probabilities.double() * counts.sum()
    statistic = ((counts - expected).square() / expected).sum().item()
    return statistic < chi2.isf(level, len(counts) - 1)


@pytest.mark.parametrize(("kind", "stored"), [("categorical", "continuous"), ("mixture", "codes")])
def test_a_head_refuses_latents_it_cannot_describe(kind, stored):
    values = {"kind": kind} | ({"tied": False} if kind == "categorical" else {})
    if kind == "mixture":
        values |= {"components": 2, "std_floor": 0.1, "guidance_candidates": 2}
    options = validate(HeadOptions.of_kind(kind), values, source="params.yaml")
    head = {"categorical": CategoricalHead, "mixture": MixtureHead}[kind]
    spec = LatentSpec(stored, 2, 3, num_codes=4, channels=2)
    with pytest.raises(ParamsError, match=f"head.kind: '{kind}' .* the bottleneck stores {stored}"):
        head(options, spec, WIDTH)


def test_probabilities_of_all_codes_sum_to_one():
    head = categorical()
    hidden = torch.randn(1, 1, WIDTH).expand(1, 5, WIDTH)
    assert head.log_prob(hidden, torch.arange(5)[None]).exp().sum().item() == pytest.approx(1)


def test_sampled_codes_have_the_probabilities_of_the_head():
    head, count = categorical(), 20_000
    hidden = torch.randn(WIDTH)
    drawn = head.sample(rows(hidden, count), None, torch.rand(count, 1), MODEL)
    probabilities = head.logits(hidden).softmax(-1).detach()
    assert chi_square_passes(torch.bincount(drawn, minlength=5), probabilities)


def test_cold_sampling_and_top_1_give_the_most_probable_code():
    head, hidden, uniforms = categorical(), torch.randn(40, WIDTH), torch.rand(40, 1)
    best = head.logits(hidden).argmax(dim=-1)
    for change in ({"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}):
        assert torch.equal(head.sample(hidden, None, uniforms, settings(**change)), best)


def test_categorical_guidance_mixes_log_probabilities():
    head, count = categorical(), 20_000
    with_class, without = torch.randn(WIDTH), torch.randn(WIDTH)
    uniforms = torch.rand(count, 1)
    log_c, log_u = (head.logits(h).log_softmax(-1).detach() for h in (with_class, without))
    for guidance in (0.5, 2.0):
        drawn = head.sample(
            rows(with_class, count), rows(without, count), uniforms, settings(guidance=guidance)
        )
        guided = (log_u + guidance * (log_c - log_u)).softmax(-1)
        assert chi_square_passes(torch.bincount(drawn, minlength=5), guided)
    drawn = head.sample(
        rows(with_class, count), rows(without, count), uniforms, settings(guidance=0.0)
    )
    assert torch.equal(drawn, head.sample(rows(without, count), None, uniforms, MODEL))


def test_tied_codes_are_read_by_the_weights_that_predict_them():
    options = CategoricalOptions(kind="categorical", tied=True)
    head = loud(CategoricalHead(options, CODES, WIDTH))
    codes = torch.tensor([[4, 0, 3]])
    assert torch.equal(head.embed(codes), head.project_out.weight[codes])
    assert {name for name, _ in head.named_parameters()} == {
        "project_out.weight",
        "project_out.bias",
    }


@pytest.mark.parametrize("first", [2, 3])
def test_probabilities_of_both_parts_of_all_codes_sum_to_one(first):
    head = factorised(first=first)
    hidden = torch.randn(1, 1, WIDTH).expand(1, 6, WIDTH)
    probabilities = head.log_prob(hidden, torch.arange(6)[None]).exp()
    assert probabilities.sum().item() == pytest.approx(1)
    # The second part depends on the first: the table is no outer product.
    table = probabilities.view(first, -1)
    independent = table.sum(1, keepdim=True) * table.sum(0)
    assert (table - independent).abs().max() > 1e-3


def test_sampled_codes_of_two_parts_have_the_probabilities_of_the_head():
    head, count = factorised(), 20_000
    hidden = torch.randn(WIDTH)
    drawn = head.sample(rows(hidden, count), None, torch.rand(count, 2), MODEL)
    probabilities = head.log_prob(rows(hidden, 6)[None], torch.arange(6)[None])[0].exp().detach()
    assert chi_square_passes(torch.bincount(drawn, minlength=6), probabilities)


def test_guidance_acts_on_both_parts():
    head, count = factorised(), 20_000
    with_class, without = torch.randn(WIDTH), torch.randn(WIDTH)
    drawn = head.sample(
        rows(with_class, count),
        rows(without, count),
        torch.rand(count, 2),
        settings(guidance=2.0),
    )

    def guided(logits):
        return (2 * logits[0].log_softmax(-1) - logits[1].log_softmax(-1)).softmax(-1)

    both, expected = (with_class, without), []
    firsts = guided([head.first_logits(hidden) for hidden in both])
    for first, probability in enumerate(firsts):
        index = torch.tensor(first)
        seconds = guided([head.second_logits(hidden, index) for hidden in both])
        expected.append(probability * seconds)
    assert chi_square_passes(torch.bincount(drawn, minlength=6), torch.cat(expected).detach())


def test_a_cut_must_leave_whole_parts():
    for num_codes, first in ((6, 4), (6, 6)):
        with pytest.raises(ParamsError, match=f"head.first: must divide .* got {first} of 6"):
            factorised(num_codes, first)


def test_a_large_codebook_costs_two_small_tables():
    head = factorised(num_codes=2**18, first=2**9)
    assert sum(parameter.numel() for parameter in head.parameters()) < 2**16
    tokens = torch.tensor([[0, 2**18 - 1, 123_456]])
    assert head.log_prob(torch.randn(1, 3, WIDTH), tokens).isfinite().all()


def test_mixture_density_equals_torch_distributions():
    head, hidden = mixture(), torch.randn(4, 3, WIDTH)
    tokens = torch.randn(4, 3, 2)
    parts = head.mixture(hidden)
    reference = MixtureSameFamily(
        Categorical(logits=parts.logits), Independent(Normal(parts.means, parts.stds), 1)
    )
    torch.testing.assert_close(head.log_prob(hidden, tokens), reference.log_prob(tokens))
    assert (parts.stds > head.std_floor).all()


def test_mixture_density_is_float32_under_autocast():
    head, hidden, tokens = mixture(), torch.randn(4, 3, WIDTH), torch.randn(4, 3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        density = head.log_prob(hidden, tokens)
    assert torch.equal(density, head.log_prob(hidden, tokens))


def test_mixture_density_integrates_to_one():
    head, hidden = mixture(channels=1), torch.randn(1, 1, WIDTH)
    grid = torch.linspace(-40, 40, 80_001)
    density = head.log_prob(hidden.expand(1, len(grid), WIDTH), grid[None, :, None]).exp()
    assert torch.trapezoid(density[0].double(), grid.double()).item() == pytest.approx(1, abs=1e-5)


def test_mixture_components_start_apart_and_as_wide_as_the_latents():
    torch.manual_seed(0)
    options = MixtureOptions(kind="mixture", components=4, std_floor=1e-6, guidance_candidates=1)
    head = MixtureHead(options, LatentSpec("continuous", 1, 2, channels=3), WIDTH)
    start = head.mixture(torch.zeros(1, WIDTH))
    torch.testing.assert_close(start.stds, torch.ones(1, 4, 3), atol=1e-5, rtol=0)
    assert torch.pdist(start.means[0]).min() > 0.1
    assert torch.equal(start.logits, torch.zeros(1, 4))


def one_dimensional(logits, means, stds, count):
    parts = (torch.tensor(logits), torch.tensor(means)[:, None], torch.tensor(stds)[:, None])
    return DiagonalMixture(*(part.expand(count, *part.shape) for part in parts))


def counts_between(values, edges):
    return torch.histogram(values.double(), bins=edges.double()).hist


def test_mixture_draws_follow_its_distribution_function():
    count = 20_000
    parts = one_dimensional([0.0, 1.0], [-1.0, 2.0], [0.5, 1.0], count)
    drawn = parts.from_uniforms(torch.rand(count, 2))[:, 0]
    edges = torch.tensor([-50.0, -1.5, -1.0, -0.5, 0.5, 1.5, 2.0, 3.0, 50.0])
    weights = torch.tensor([0.0, 1.0]).softmax(0)
    below = weights[0] * Normal(-1.0, 0.5).cdf(edges) + weights[1] * Normal(2.0, 1.0).cdf(edges)
    assert chi_square_passes(counts_between(drawn, edges), below.diff())


def test_mixture_temperature_and_truncation():
    parts = one_dimensional([0.0, 1.0, 3.0], [-1.0, 2.0, 5.0], [0.5, 1.0, 2.0], 1)
    warm = parts.tempered(settings(temperature=2.0))
    assert warm.logits.tolist() == [[0.0, 0.5, 1.5]]
    assert torch.equal(warm.stds, parts.stds)
    wide = parts.tempered(settings(variance_temperature=2.0))
    assert torch.equal(wide.logits, parts.logits)
    assert wide.stds.flatten().tolist() == [1.0, 2.0, 4.0]
    assert parts.tempered(settings(top_k=1)).logits.isfinite().tolist() == [[False, False, True]]
    cold = parts.tempered(settings(temperature=1e-4, variance_temperature=1e-4)).from_uniforms(
        torch.rand(1, 2)
    )
    assert cold.item() == pytest.approx(5.0, abs=1e-2)


@pytest.mark.parametrize("guidance", [0.5, 2.0])
def test_mixture_guidance_follows_the_density_ratio(guidance, monkeypatch):
    head, count = mixture(channels=1, components=2, candidates=40), 20_000
    # The class narrows and shifts: p_c^2 / p_u can then be normalised.
    with_class = one_dimensional([0.0, 1.0], [-1.0, 1.0], [0.5, 0.8], count)
    without = one_dimensional([0.5, 0.0], [-1.5, 0.5], [1.0, 1.2], count)
    parts = [with_class, without]
    monkeypatch.setattr(head, "mixture", lambda hidden: parts[int(hidden[0, 0])])
    drawn = head.sample(
        torch.zeros(count, WIDTH),
        torch.ones(count, WIDTH),
        torch.rand(count, head.noise_dim),
        settings(guidance=guidance),
    )[:, 0]
    grid = torch.linspace(-10, 10, 20_001).double()
    log_c, log_u = (
        DiagonalMixture(part.logits[:1], part.means[:1], part.stds[:1]).log_prob(grid[:, None])
        for part in parts
    )
    below = torch.cumulative_trapezoid((log_u + guidance * (log_c - log_u)).exp(), grid)
    below /= below[-1].clone()
    for quantile in (0.1, 0.5, 0.9):
        at = grid[1:][torch.searchsorted(below, quantile)]
        # 40 candidates leave a bias of order 1/40; four standard errors of the count are 0.014.
        assert (drawn < at).double().mean().item() == pytest.approx(quantile, abs=0.03)


def test_mixture_guidance_is_bounded_where_the_guided_density_does_not_exist(monkeypatch):
    head, count = mixture(channels=1, components=1, candidates=100), 20_000
    wide, narrow = (one_dimensional([0.0], [0.0], [std], count) for std in (1.2, 1.0))
    limit = 1.0 / (1.44 - 1.0)
    torch.testing.assert_close(wide.power_limit(narrow), torch.full((count,), limit))
    assert narrow.power_limit(wide).isinf().all()
    parts = [wide, narrow]
    monkeypatch.setattr(head, "mixture", lambda hidden: parts[int(hidden[0, 0])])
    drawn = head.sample(
        torch.zeros(count, WIDTH),
        torch.ones(count, WIDTH),
        torch.rand(count, head.noise_dim),
        settings(guidance=50.0),
    )
    # Half of the limit leaves a Gaussian of twice the class's variance. Five standard errors of a
    # variance, and 1/20 for the bias of 100 candidates (2.749 of 2.88 over 200,000 draws).
    expected = 2 * 1.44
    error = 5 * expected * (2 / count) ** 0.5 + expected / 20
    assert drawn.square().mean().item() == pytest.approx(expected, abs=error)


def test_below_the_limit_the_guided_density_falls_in_every_direction():
    torch.manual_seed(3)
    first, second = (
        DiagonalMixture(torch.randn(50, 4), torch.randn(50, 4, 3), 0.5 + torch.rand(50, 4, 3))
        for _ in range(2)
    )
    limit = first.power_limit(second)
    assert limit.isfinite().sum() > 20
    power = 0.95 * limit.clamp(max=20)
    directions = torch.randn(200, 50, 3)
    directions /= directions.norm(dim=-1, keepdim=True)
    near, far = (
        (1 + power) * first.log_prob(radius * directions)
        - power * second.log_prob(radius * directions)
        for radius in (300.0, 600.0)
    )
    assert (far < near).all()
    # Removed components of the first ask for nothing, those of the second bear nothing.
    gone = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf]).expand(50, 4)
    without = DiagonalMixture(gone, first.means, first.stds).power_limit(second)
    alone = DiagonalMixture(gone[:, :2], first.means[:, :2], first.stds[:, :2])
    assert torch.equal(without, alone.power_limit(second)) and (without >= limit).all()
    cut = DiagonalMixture(gone, second.means, second.stds)
    assert (first.power_limit(cut) <= limit).all()


def test_variance_temperature_multiplies_the_deviation_of_what_is_drawn():
    head, count = mixture(channels=2, components=1), 20_000
    hidden = torch.randn(WIDTH)
    uniforms = torch.rand(count, head.noise_dim)
    stds = head.mixture(hidden).stds[0]
    for factor in (0.5, 1.7):
        drawn = head.sample(
            rows(hidden, count), None, uniforms, settings(variance_temperature=factor)
        )
        # Five standard errors of a standard deviation: 5 / sqrt(2 N), 2.5 % here.
        ratio = drawn.std(dim=0) / (factor * stds)
        assert (ratio - 1).abs().max() < 5 / (2 * count) ** 0.5


def test_min_p_and_the_schedule_reach_the_draw():
    head, count = categorical(), 500
    hidden = torch.randn(WIDTH)
    probabilities = head.logits(hidden).softmax(-1)
    drawn = head.sample(rows(hidden, count), None, torch.rand(count, 1), settings(min_p=0.5))
    allowed = (probabilities >= 0.5 * probabilities.max()).nonzero().flatten()
    assert set(drawn.tolist()) == set(allowed.tolist())


@pytest.mark.parametrize("power", [1.0, 2.75])
def test_schedules_are_their_closed_forms(power):
    def guidance(schedule, token, tokens=8, **changes):
        how = settings(guidance=3.0, guidance_schedule=schedule, guidance_power=power, **changes)
        return how.at(token, tokens).guidance

    assert [guidance("linear", t) for t in (0, 4)] == pytest.approx([1, 1 + 2 * 0.5**power])
    assert guidance("cosine", 0) == 1
    grown = math.sin(math.pi / 2 * 0.5**power) ** 2
    assert guidance("cosine", 4) == pytest.approx(1 + 2 * grown)
    rising = [guidance("cosine", t) for t in range(8)]
    assert rising == sorted(rising) and rising[-1] < 3
    assert guidance("constant", 3) == 3
    inside = [guidance("constant", t, guidance_interval=(0.25, 0.75)) for t in range(8)]
    assert inside == [1, 1, 3, 3, 3, 3, 1, 1]


def test_the_settings_of_a_token_are_numbers_only():
    how = settings(guidance=3.0, guidance_schedule="cosine", guidance_interval=(0.1, 0.9), top_k=2)
    once = how.at(3, 7)
    assert once.at(5, 9) == once and once.top_k == 2
    assert MODEL.at(2, 5) == MODEL


def test_mixture_guidance_0_is_the_unconditional_density():
    head, count = mixture(channels=1, components=2), 20_000
    with_class, without = torch.randn(WIDTH), torch.randn(WIDTH)
    drawn = head.sample(
        rows(with_class, count),
        rows(without, count),
        torch.rand(count, head.noise_dim),
        settings(guidance=0.0),
    )[:, 0]
    parts = head.mixture(without)
    edges = torch.tensor([-60.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 60.0])
    weights = parts.logits.softmax(-1)
    cdf = Normal(parts.means[:, 0], parts.stds[:, 0]).cdf(edges[:, None])
    probabilities = (weights * cdf).sum(-1).diff().detach()
    kept = probabilities * count > 5
    counts = counts_between(drawn, edges)
    assert chi_square_passes(counts[kept], probabilities[kept] / probabilities[kept].sum())


@pytest.mark.parametrize(
    "head",
    [categorical(), factorised(), mixture()],
    ids=["categorical", "factorised", "mixture"],
)
@pytest.mark.parametrize("guided", [False, True])
def test_a_draw_depends_on_its_own_row_only(head, guided):
    hidden, other = torch.randn(8, WIDTH), torch.randn(8, WIDTH) if guided else None
    uniforms = torch.rand(8, head.noise_dim)
    how = settings(guidance=2.0 if guided else 1.0, temperature=0.9, top_k=2)
    drawn = head.sample(hidden, other, uniforms, how)
    order = torch.randperm(8)
    again = head.sample(
        hidden[order], None if other is None else other[order], uniforms[order], how
    )
    torch.testing.assert_close(again, drawn[order])
