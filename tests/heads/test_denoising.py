"""Laws of the heads that carry noise to a token: closed forms, densities, draws, guidance."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Normal

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import validate
from stages.heads.base import HeadOptions, SamplerSettings
from stages.heads.diffusion import DiffusionHead, DiffusionOptions
from stages.heads.flow import FlowHead, FlowOptions
from stages.nn.inverse_cdf import normal_from_uniform

WIDTH, MLP, BATCH, TOKENS = 6, 16, 5, 3
MODEL = SamplerSettings(temperature=1.0, top_k=0, top_p=1.0, guidance=1.0)
DIFFUSION = {
    "kind": "diffusion",
    "blocks": 1,
    "width": MLP,
    "draws": 3,
    "noise_floor": 0.005,
    "sampling_steps": 20,
    "eta": 1.0,
    "bound_points": 64,
}
FLOW = {
    "kind": "flow",
    "blocks": 1,
    "width": MLP,
    "draws": 3,
    "times": "uniform",
    "solver": "rk4",
    "sampling_steps": 6,
    "density_steps": 6,
}
# Of the Gaussian tokens below.
MEAN, STD = 0.7, 0.3


@pytest.fixture(autouse=True)
def one_stream():
    """Every test has the same draws alone as in company."""
    torch.manual_seed(5)


def settings(**changes):
    return SamplerSettings(**{**vars(MODEL), **changes})


def diffusion(channels=2, **changes):
    torch.manual_seed(0)
    spec = LatentSpec("continuous", 2, 3, channels=channels)
    return DiffusionHead(DiffusionOptions(**{**DIFFUSION, **changes}), spec, WIDTH)


def flow(channels=2, **changes):
    torch.manual_seed(0)
    spec = LatentSpec("continuous", 2, 3, channels=channels)
    return FlowHead(FlowOptions(**{**FLOW, **changes}), spec, WIDTH)


def loud(head, how=0.2):
    for parameter in head.parameters():
        parameter.data.add_(how * torch.randn_like(parameter))
    return head


def knowing(head, monkeypatch):
    """The head with the network that N(MEAN, STD^2) data call for."""

    def velocity_of_flow(numbers, times, condition):
        t = times.unsqueeze(-1)
        slope = (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2)
        return MEAN + slope * (numbers - t * MEAN)

    def velocity_of_diffusion(numbers, times, condition):
        signal, blur = (f(head._angles(times)).unsqueeze(-1) for f in (torch.cos, torch.sin))
        off = (numbers - signal * MEAN) / (signal**2 * STD**2 + blur**2)
        # E[e given x_t] and E[x given x_t].
        return signal * blur * off - blur * (MEAN + signal * STD**2 * off)

    if isinstance(head, FlowHead):
        monkeypatch.setattr(head, "velocity", velocity_of_flow)
    else:
        monkeypatch.setattr(head, "_velocity", velocity_of_diffusion)
    return head


def hidden_and_tokens(channels=2):
    return torch.randn(BATCH, TOKENS, WIDTH), torch.randn(BATCH, TOKENS, channels)


@pytest.mark.parametrize("values", [DIFFUSION, FLOW], ids=["diffusion", "flow"])
def test_codes_are_refused(values):
    options = validate(HeadOptions.of_kind(values["kind"]), values, source="params.yaml")
    head = {"diffusion": DiffusionHead, "flow": FlowHead}[values["kind"]]
    with pytest.raises(ParamsError, match=f"'{values['kind']}' describes continuous latents"):
        head(options, LatentSpec("codes", 2, 3, num_codes=4), WIDTH)


@pytest.mark.parametrize("head", [diffusion(3, bound_points=3), flow(3)], ids=["diffusion", "flow"])
def test_an_untrained_head_is_the_standard_normal_distribution(head):
    hidden, tokens = hidden_and_tokens(3)
    expected = Normal(0.0, 1.0).log_prob(tokens).sum(-1)
    # Of the bound this holds token by token: nothing is left to the points.
    torch.testing.assert_close(head.log_prob(hidden, tokens), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("solver", ["midpoint", "rk4"])
def test_the_density_of_a_gaussian_flow_is_that_of_its_tokens(solver, monkeypatch):
    hidden, tokens = torch.randn(BATCH, TOKENS, WIDTH), MEAN + STD * torch.randn(BATCH, TOKENS, 2)
    exact = Normal(MEAN, STD).log_prob(tokens).sum(-1)
    errors = []
    for steps in (8, 32):
        head = knowing(flow(solver=solver, density_steps=steps), monkeypatch)
        errors.append((head.log_prob(hidden, tokens) - exact).abs().max().item())
    assert errors[1] < 1e-2 and errors[1] < errors[0] / 8


def test_the_bound_of_the_right_guesses_is_the_density(monkeypatch):
    head = knowing(diffusion(bound_points=128), monkeypatch)
    hidden, tokens = torch.randn(BATCH, TOKENS, WIDTH), MEAN + STD * torch.randn(BATCH, TOKENS, 2)
    exact = Normal(MEAN, STD).log_prob(tokens).sum(-1)
    difference = head.log_prob(hidden, tokens) - exact
    # Other points for every token: four standard errors of their mean.
    assert difference.std() < 0.5
    assert difference.mean().abs() < 4 * difference.std() / difference.numel() ** 0.5


def test_the_bound_of_many_numbers_is_no_better_than_the_density(monkeypatch):
    # Where shifts are coarse, noise has more than its variance, and silence too little cost.
    head = knowing(diffusion(channels=16), monkeypatch)
    hidden, tokens = torch.randn(1, 5000, WIDTH), MEAN + STD * torch.randn(1, 5000, 16)
    difference = head.log_prob(hidden, tokens) - Normal(MEAN, STD).log_prob(tokens).sum(-1)
    assert difference.mean().abs() < 4 * difference.std() / difference.numel() ** 0.5


def test_shifts_of_the_bound_are_even_and_those_of_one_token():
    head = diffusion(channels=3)
    tokens = 5 + 0.01 * torch.randn(20_000, 3)
    shifts = head._hash(tokens)
    assert shifts.shape == (20_000, 4) and shifts.min() >= 0 and shifts.max() < 1
    for one in shifts.T:
        # Kolmogorov and Smirnov at level 1e-4.
        assert kstest(one.numpy(), "uniform").pvalue > 1e-4
    assert (torch.corrcoef(shifts.T) - torch.eye(4)).abs().max() < 0.03
    assert torch.equal(head._hash(tokens[:1]), shifts[:1])
    assert torch.equal(head._hash(torch.zeros(1, 3)), head._hash(-torch.zeros(1, 3)))


def test_a_flow_integrates_to_one_in_one_and_two_dimensions():
    head, hidden = loud(flow(1, density_steps=16)), torch.randn(1, 1, WIDTH)
    line = torch.linspace(-9, 9, 1001)
    density = head.log_prob(hidden.expand(1, 1001, WIDTH), line[None, :, None]).exp()[0]
    assert torch.trapezoid(density.double(), line.double()).item() == pytest.approx(1, abs=5e-3)
    head, line = loud(flow(2, density_steps=12), 0.1), torch.linspace(-7, 7, 71)
    plane = torch.cartesian_prod(line, line)
    density = head.log_prob(hidden.expand(1, len(plane), WIDTH), plane[None]).exp()
    assert density.double().sum().item() * 0.2**2 == pytest.approx(1, abs=5e-3)


def test_a_bound_integrates_to_one_at_most_and_to_less_where_guesses_are_bad():
    line, hidden = torch.linspace(-9, 9, 301), torch.randn(1, 1, WIDTH)
    masses = []
    for head in (diffusion(1, bound_points=8), loud(diffusion(1, bound_points=48), 0.5)):
        density = head.log_prob(hidden.expand(1, 301, WIDTH), line[None, :, None]).exp()[0]
        masses.append(torch.trapezoid(density.double(), line.double()).item())
    assert masses[0] == pytest.approx(1, abs=2e-3) and masses[1] < 0.9


def test_the_bound_does_not_hang_on_its_points():
    hidden, tokens = torch.randn(1, 1, WIDTH).expand(1, 300, WIDTH), torch.randn(1, 300, 2)
    coarse, fine = (loud(diffusion(bound_points=n), 0.3) for n in (4, 64))
    fine.load_state_dict(coarse.state_dict())
    difference = coarse.log_prob(hidden, tokens) - fine.log_prob(hidden, tokens)
    # What few points miss is another thing for every token: four standard errors.
    assert difference.std() > 0.01
    assert difference.mean().abs() < 4 * difference.std() / 300**0.5


def test_points_of_the_bound_lie_as_its_weights_do():
    head = diffusion(bound_points=4096, noise_floor=0.05)
    times = head._bound_times(head.points[:, 0].double())
    ratios = -2 * torch.log(torch.tan(head._angles(times)))
    lowest, highest = (
        -2 * math.log(math.tan(head._angles(torch.tensor(time).double()).item()))
        for time in (1.0, 0.0)
    )
    grid = torch.linspace(lowest, highest, 10_001, dtype=torch.float64)
    whole = 0.5 * torch.trapezoid(grid.sigmoid(), grid) + 0.5 * grid[-1].sigmoid()
    assert head.weight == pytest.approx(whole.item(), rel=1e-6)
    for place in (0.3, 0.6, 0.9):
        below = grid[: int(place * 10_000) + 1]
        share = 0.5 * torch.trapezoid(below.sigmoid(), below) / whole
        found = (ratios <= below[-1]).double().mean()
        assert found.item() == pytest.approx(share.item(), abs=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_denoised_tokens_follow_the_distribution_of_right_guesses(eta, monkeypatch):
    head = knowing(diffusion(1, eta=eta, sampling_steps=200), monkeypatch)
    count = 4000
    drawn = head.sample(torch.zeros(count, WIDTH), None, torch.rand(count, head.noise_dim), MODEL)
    # Four standard errors, and the error of 200 steps.
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * STD / count**0.5 + 0.01)
    assert drawn.std().item() == pytest.approx(STD, abs=4 * STD / (2 * count) ** 0.5 + 0.01)


@pytest.mark.parametrize("warmth", [1.0, 0.5])
def test_a_gaussian_flow_maps_noise_to_tokens(warmth, monkeypatch):
    head = knowing(flow(sampling_steps=40), monkeypatch)
    uniforms = torch.rand(7, head.noise_dim)
    drawn = head.sample(
        torch.zeros(7, WIDTH), None, uniforms, settings(variance_temperature=warmth)
    )
    expected = MEAN + STD * warmth * normal_from_uniform(uniforms)
    torch.testing.assert_close(drawn, expected, atol=1e-3, rtol=0)


def test_without_fresh_noise_a_token_takes_one_number_per_channel():
    assert diffusion(3, eta=0.0).noise_dim == 3 and flow(3).noise_dim == 3
    assert diffusion(3, eta=0.1).noise_dim == 3 * DIFFUSION["sampling_steps"]


HEADS = [loud(diffusion()), loud(diffusion(eta=0.0)), loud(flow())]
IDS = ["diffusion", "one noise", "flow"]


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_guidance_1_is_none_and_0_is_without_the_class(head):
    with_class, without = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    uniforms = torch.rand(4, head.noise_dim)
    free = head.sample(with_class, without, uniforms, settings(guidance=0.0))
    torch.testing.assert_close(free, head.sample(without, None, uniforms, MODEL))
    plain = head.sample(with_class, without, uniforms, settings(guidance=1.0))
    torch.testing.assert_close(plain, head.sample(with_class, None, uniforms, MODEL))
    assert not torch.allclose(free, plain, atol=1e-3)


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("guided", [False, True])
def test_a_draw_depends_on_its_own_row_only(head, guided):
    hidden, other = torch.randn(8, WIDTH), torch.randn(8, WIDTH) if guided else None
    uniforms, order = torch.rand(8, head.noise_dim), torch.randperm(8)
    how = settings(guidance=2.0 if guided else 1.0, variance_temperature=0.9)
    drawn = head.sample(hidden, other, uniforms, how)
    other = None if other is None else other[order]
    again = head.sample(hidden[order], other, uniforms[order], how)
    torch.testing.assert_close(again, drawn[order])


@pytest.mark.parametrize("head", HEADS, ids=IDS)
@pytest.mark.parametrize("change", [{"top_k": 2}, {"top_p": 0.9}])
def test_there_is_nothing_to_truncate(head, change):
    with pytest.raises(ParamsError, match=f"sampling.{next(iter(change))}: must be"):
        head.sample(torch.zeros(1, WIDTH), None, torch.rand(1, head.noise_dim), settings(**change))


@pytest.mark.parametrize("head", HEADS, ids=IDS)
def test_what_a_token_is_worth_is_float32_under_autocast(head):
    hidden, tokens = hidden_and_tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        worth = head.log_prob(hidden, tokens)
        loss = head.loss(hidden, tokens)
    assert torch.equal(worth, head.log_prob(hidden, tokens))
    assert loss.dtype == torch.float32 and loss.isfinite().all()


@pytest.mark.parametrize("make", [diffusion, flow])
def test_the_loss_falls_to_the_error_that_nothing_can_avoid(make, monkeypatch):
    count = 20_000
    hidden, tokens = torch.zeros(1, count, WIDTH), MEAN + STD * torch.randn(1, count, 1)
    head = knowing(make(1), monkeypatch)
    loss = head.loss(hidden, tokens)
    times = torch.linspace(0, 1, 2001, dtype=torch.float64)
    if make is flow:
        # Var(x - e given x_t) of a Gaussian pair.
        left = STD**2 / ((1 - times) ** 2 + times**2 * STD**2)
    else:
        angles = head._angles(times)
        left = STD**2 / (angles.cos() ** 2 * STD**2 + angles.sin() ** 2)
    expected = torch.trapezoid(left, times).item()
    error = 4 * loss.std().item() / math.sqrt(count)
    assert loss.mean().item() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("make", [diffusion, flow])
def test_it_learns_two_modes_that_the_hidden_state_chooses(make):
    head = make(1)
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    # State 0: both modes; state 1: the upper one.
    hidden = torch.zeros(2, 128, WIDTH)
    hidden[1] = 1.0
    for _ in range(100):
        signs = torch.randint(2, (2, 128, 1)) * 2.0 - 1
        signs[1] = 1.0
        optimizer.zero_grad()
        head.loss(hidden, signs + 0.2 * torch.randn_like(signs)).mean().backward()
        optimizer.step()
    drawn = [head.sample(row, None, torch.rand(128, head.noise_dim), MODEL) for row in hidden]
    assert (drawn[1] > 0).double().mean() > 0.95
    assert 0.25 < (drawn[0] > 0).double().mean() < 0.75
    assert (drawn[0].abs() - 1).abs().mean() < 0.35
    places = torch.tensor([-1.0, 0.0, 1.0])[None, :, None].expand(2, 3, 1)
    worth = head.log_prob(hidden[:, :3], places)
    assert (worth[0, [0, 2]] > worth[0, 1] + 1).all() and worth[1, 2] > worth[1, 0] + 2
