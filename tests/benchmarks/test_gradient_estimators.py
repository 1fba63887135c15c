"""The benchmark measures what it says: exact gradients, known biases, laws of the estimators."""

import itertools
import json
import re

import pytest
import torch

from benchmarks.gradient_estimators.__main__ import main
from benchmarks.gradient_estimators.estimators import Estimator, make_estimators
from benchmarks.gradient_estimators.measure import measure
from benchmarks.gradient_estimators.problem import INPUTS, NUM_CODES, VARIABLES, make_problem
from benchmarks.gradient_estimators.report import markdown

PROBLEM = make_problem(3)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def measured():
    """All estimators at 16,384 draws, by name."""
    estimators = make_estimators(PROBLEM, 5)
    return {e.name: (e, measure(e, PROBLEM, 16_384, stream(11))) for e in estimators}


def test_the_exact_gradient_is_that_of_finite_differences_of_a_slow_loop():
    def expected(logits):
        q = torch.softmax(logits, dim=-1)
        total = torch.zeros((), dtype=torch.float64)
        for codes in itertools.product(range(NUM_CODES), repeat=VARIABLES):
            chosen = torch.tensor(codes).expand(INPUTS, VARIABLES)
            weight = q.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).prod(dim=-1)
            total += (weight * PROBLEM.cost_of_codes(chosen).double()).sum()
        return total.item()

    logits, exact = PROBLEM.logits.double(), PROBLEM.exact_gradient()
    for place in ((0, 0, 0), (2, 1, 4), (3, 2, 5)):
        step = torch.zeros_like(logits)
        step[place] = 1e-3
        slope = (expected(logits + step) - expected(logits - step)) / 2e-3
        assert slope == pytest.approx(exact[place].item(), rel=1e-4, abs=1e-6)


def test_a_known_bias_is_measured():
    exact, scale = PROBLEM.exact_gradient().float(), 1.1

    def gradients(problem, draws, generator):
        return scale * exact + torch.randn(draws, *exact.shape, generator=generator)

    found = measure(Estimator("made up", None, 1, gradients), PROBLEM, 50_000, stream())
    assert found.has_bias
    assert abs(found.bias - 0.1 * exact.norm().item()) < 4 * found.bias_error
    assert found.variance == pytest.approx(exact.numel(), rel=0.02)


def test_noise_is_not_taken_for_a_bias():
    exact = PROBLEM.exact_gradient().float()

    def gradients(problem, draws, generator):
        return exact + 3 * torch.randn(draws, *exact.shape, generator=generator)

    estimator = Estimator("made up", None, 1, gradients)
    found = [measure(estimator, PROBLEM, 500, stream(seed)) for seed in range(20)]
    assert not any(moments.has_bias for moments in found)
    # The standard error is one: of 20 estimates, the spread is within a factor of two of it.
    spread = torch.tensor([moments.bias_square for moments in found]).std().item()
    assert 0.5 < spread / found[0].null_error < 2


def test_the_score_function_has_no_bias_whatever_its_baseline(measured):
    found = [m for name, (_, m) in measured.items() if name.startswith("REINFORCE")]
    assert len(found) == 4
    # One-sided, four standard errors each.
    assert all(m.bias_square < 4 * m.null_error for m in found)


def test_baselines_quiet_the_score_function(measured):
    variance = {name: e.evaluations * m.variance for name, (e, m) in measured.items()}
    without, constant = variance["REINFORCE"], variance["REINFORCE, constant baseline"]
    assert variance["REINFORCE, learned baseline"] < constant < without
    assert variance["REINFORCE, leave one out"] < without


def test_the_relaxation_trades_bias_for_noise_by_its_temperature(measured):
    relaxed = [m for name, (_, m) in measured.items() if name.startswith("Gumbel-Softmax")]
    hot, warm, cool, cold = relaxed
    assert hot.bias > warm.bias > cool.bias
    assert cold.bias_limit < cool.bias
    assert hot.variance < warm.variance < cool.variance < cold.variance
    assert hot.has_bias and warm.has_bias


def test_straight_through_keeps_a_bias(measured):
    for tau in ("2", "1", "0.5"):
        assert measured[f"straight-through Gumbel, tau {tau}"][1].has_bias


def test_the_table_has_a_row_for_each_and_says_what_is_not_seen(measured):
    rows = markdown(list(measured.values())).splitlines()
    assert len(rows) == 2 + 12
    assert "not distinguishable from 0 (below 0." in rows[2]
    assert re.search(r"\| Gumbel-Softmax \| 2 \| 1 \| \d\.\d+ ± \d\.\d+ \|", rows[6])


def test_the_program_writes_its_results(tmp_path, capsys):
    main(["--draws", "64", "--seed", "2", "--output", str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.csv", "table.md", "bias_and_variance.png", "run.json"}
    about = json.loads((tmp_path / "run.json").read_text())
    asked = about["settings"]
    assert (asked["draws_per_estimator"], asked["seed"]) == (64, 2)
    assert {"date", "commit", "processor", "torch"} <= about.keys()
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out


def test_the_page_shows_the_table_that_was_measured(project):
    table = (project / "benchmarks/results/gradient_estimators/table.md").read_text()
    assert table in (project / "docs/gradient_estimators.md").read_text()
