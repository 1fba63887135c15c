"""The score function against enumeration; the baseline learns what can be known beforehand."""

import pytest
import torch

from stages.nn.categorical import draw_codes, log_prob
from stages.nn.score_function import LearnedBaseline, score_function_loss


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def baseline(decay=0.9, width=8):
    torch.manual_seed(0)
    return LearnedBaseline(3, width, decay)


def kinds(*which):
    """Images of these kinds, as the baseline sees them: (batch, 3, 1, 2)."""
    return torch.eye(3)[list(which)][:, :, None, None].expand(-1, -1, 1, 2).contiguous()


def test_the_loss_is_worth_nothing_and_its_gradient_is_the_weighted_score():
    log_q = torch.randn(4, requires_grad=True)
    signal = torch.tensor([1.0, -2.0, 0.5, 3.0], requires_grad=True)
    loss = score_function_loss(log_q, signal)
    assert loss.item() == 0
    loss.backward()
    torch.testing.assert_close(log_q.grad, signal.detach() / 4)
    assert signal.grad is None


def test_the_score_function_is_right_on_average():
    logits, costs, draws = torch.randn(5, generator=stream()), torch.randn(5) * 3 + 40, 20_000
    exact_logits = logits.double().requires_grad_()
    (torch.softmax(exact_logits, 0) * costs.double()).sum().backward()
    many = logits.expand(draws, 5).clone().requires_grad_()
    codes = draw_codes(many, stream(1))
    score_function_loss(log_prob(many, codes), costs[codes] - 40).backward()
    each = many.grad.double() * draws
    # Five numbers at five standard errors each.
    error = 5 * each.std(dim=0) / draws**0.5
    assert ((each.mean(dim=0) - exact_logits.grad).abs() < error).all()


def test_of_a_first_batch_nothing_is_expected():
    model = baseline()
    signal, regression = model(kinds(0, 1, 2, 0), torch.tensor([9.0, 5.0, 7.0, 3.0]))
    assert torch.equal(signal, torch.zeros(4))
    assert regression.requires_grad and regression.isfinite()
    model.after_step()
    assert (model.mean.item(), model.variance.item()) == (6.0, 5.0)


def test_the_signal_is_held_against_earlier_batches_only():
    model = baseline()
    model(kinds(0, 1), torch.tensor([10.0, 30.0]))
    model.after_step()
    twin = baseline()
    twin.load_state_dict(model.state_dict())
    cost = torch.tensor([100.0, 20.0])
    signal, _ = model(kinds(0, 1), cost)
    other, _ = twin(kinds(0, 1), torch.tensor([100.0, -500.0]))
    assert signal[0] == other[0], "another image's cost moves the baseline of the same batch"
    torch.testing.assert_close(cost - signal, torch.tensor([20.0, 20.0]), atol=20.0, rtol=0)


def test_moments_are_those_of_a_slow_loop_whatever_the_pieces():
    model, mean, variance = baseline(decay=0.7), 0.0, 1.0
    for batch in range(1, 7):
        costs = (50 + 10 * torch.randn(4, generator=stream(batch))).double()
        for half in (slice(0, 2), slice(2, 4)):
            model(kinds(0, 1, 2, 1)[half], costs.float()[half])
        model.after_step()
        pull = max(1 / batch, 0.3)
        mean += pull * (costs.mean().item() - mean)
        variance += pull * ((costs - mean).square().mean().item() - variance)
    assert model.mean.item() == pytest.approx(mean, rel=1e-5)
    assert model.variance.item() == pytest.approx(variance, rel=1e-4)


def test_it_learns_what_each_kind_of_image_costs():
    """Costs of 1000 nats, 20 of which depend on the kind: what is left is the noise."""
    model = baseline(decay=0.99, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    levels, generator = torch.tensor([980.0, 1000.0, 1030.0]), stream()
    left = []
    for _ in range(150):
        which = torch.randint(3, (32,), generator=generator)
        cost = levels[which] + torch.randn(32, generator=generator)
        signal, regression = model(kinds(*which.tolist()), cost)
        optimizer.zero_grad()
        regression.backward()
        optimizer.step()
        model.after_step()
        left.append(signal.square().mean())
    assert torch.stack(left[-20:]).mean() < 0.02 * levels.var()


def test_judging_changes_nothing():
    model = baseline()
    model(kinds(0, 1), torch.tensor([10.0, 30.0]))
    model.after_step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()(kinds(1, 2), torch.tensor([-10.0, 3.0]))
    model.after_step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_neither_features_nor_cost_get_a_gradient():
    model, features = baseline(), kinds(0, 1, 2).requires_grad_()
    cost = torch.tensor([10.0, 30.0, 20.0], requires_grad=True)
    signal, regression = model(features, cost)
    assert not signal.requires_grad
    regression.backward()
    assert features.grad is None and cost.grad is None
    assert all(p.grad is not None for p in model.parameters())


def test_equal_costs_give_finite_numbers():
    model = baseline()
    for _ in range(3):
        signal, regression = model(kinds(0, 1), torch.full((2,), 7.0))
        model.after_step()
    assert signal.isfinite().all() and regression.isfinite()
