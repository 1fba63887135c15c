"""The estimators under test, as the library's bottlenecks use them.

Each takes logits repeated for many draws and leaves in `logits.grad` one gradient per draw: that
of the input's cost with respect to its logits. Nothing is estimated here: noise, relaxation,
straight-through, score function and baseline are those of `stages/nn/categorical.py` and
`stages/nn/score_function.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.gradient_estimators.problem import INPUTS, Problem
from stages.nn.categorical import draw_codes, log_prob, relaxed_codes, straight_through_codes
from stages.nn.score_function import LearnedBaseline, score_function_loss

__all__ = ["LEAVE_ONE_OUT_DRAWS", "TAUS", "Estimator", "make_estimators"]

TAUS = (2.0, 1.0, 0.5, 0.1)
LEAVE_ONE_OUT_DRAWS = 4
_BASELINE_STEPS, _BASELINE_DRAWS, _BASELINE_WIDTH = 400, 64, 16

Gradients = Float[Tensor, "draws inputs variables codes"]
Costs = Float[Tensor, "*draws inputs"]


@dataclass(frozen=True)
class Estimator:
    """One way to a gradient.

    Attributes:
        family: What it is called.
        tau: Temperature; None: it has none.
        evaluations: How often one gradient looks at the cost of each input.
        gradients: Problem, number of draws, generator -> one gradient per draw.
    """

    family: str
    tau: float | None
    evaluations: int
    gradients: Callable[[Problem, int, torch.Generator], Gradients]

    @property
    def name(self) -> str:
        """Family and temperature."""
        return self.family if self.tau is None else f"{self.family}, tau {self.tau:g}"


def make_estimators(problem: Problem, seed: int) -> list[Estimator]:
    """All of them; the baseline is learned on draws of its own first."""
    network = _learned_baseline(problem, seed)
    running_mean = network.mean.clone()

    def none(costs: Costs) -> Costs:
        return costs

    def constant(costs: Costs) -> Costs:
        return costs - running_mean

    def learned(costs: Costs) -> Costs:
        return _as_costs(network(_inputs(len(costs)), costs.flatten())[0])

    found = [
        Estimator("REINFORCE", None, 1, _score_function(none)),
        Estimator("REINFORCE, constant baseline", None, 1, _score_function(constant)),
        Estimator("REINFORCE, learned baseline", None, 1, _score_function(learned)),
        Estimator("REINFORCE, leave one out", None, LEAVE_ONE_OUT_DRAWS, _leave_one_out),
    ]
    for tau in TAUS:
        found.append(Estimator("Gumbel-Softmax", tau, 1, _relaxed(tau, hard=False)))
    for tau in TAUS:
        found.append(Estimator("straight-through Gumbel", tau, 1, _relaxed(tau, hard=True)))
    return found


def _repeated(problem: Problem, draws: int) -> Gradients:
    """The problem's logits once per draw, to be differentiated one by one."""
    return problem.logits.expand(draws, -1, -1, -1).clone().requires_grad_()


def _gradient(loss: Float[Tensor, ""], logits: Gradients) -> Gradients:
    [gradient] = torch.autograd.grad(loss, logits)
    return gradient


def _score_function(
    signal: Callable[[Costs], Costs],
) -> Callable[[Problem, int, torch.Generator], Gradients]:
    def gradients(problem: Problem, draws: int, generator: torch.Generator) -> Gradients:
        logits = _repeated(problem, draws)
        codes = draw_codes(logits, generator)
        costs = problem.cost_of_codes(codes)
        return _score_gradient(logits, log_prob(logits, codes).sum(dim=-1), signal(costs))

    return gradients


def _leave_one_out(problem: Problem, draws: int, generator: torch.Generator) -> Gradients:
    """Each draw is held against the mean of the others; one gradient is the mean over all."""
    group = LEAVE_ONE_OUT_DRAWS
    logits = _repeated(problem, draws * group)
    codes = draw_codes(logits, generator)
    costs = problem.cost_of_codes(codes).unflatten(0, (draws, group))
    others = (costs.sum(dim=1, keepdim=True) - costs) / (group - 1)
    log_q = log_prob(logits, codes).sum(dim=-1)
    each = _score_gradient(logits, log_q, (costs - others).flatten(0, 1))
    return each.unflatten(0, (draws, group)).mean(dim=1)


def _score_gradient(logits: Gradients, log_q: Costs, signal: Costs) -> Gradients:
    # The library's loss is a mean over the batch; here every draw's own gradient is wanted.
    return _gradient(score_function_loss(log_q.flatten(), signal.flatten()), logits) * log_q.numel()


def _relaxed(tau: float, *, hard: bool) -> Callable[[Problem, int, torch.Generator], Gradients]:
    def gradients(problem: Problem, draws: int, generator: torch.Generator) -> Gradients:
        logits = _repeated(problem, draws)
        mixtures = relaxed_codes(logits, tau, generator)
        if hard:
            mixtures = straight_through_codes(mixtures)
        return _gradient(problem.cost(mixtures).sum(), logits)

    return gradients


def _inputs(draws: int) -> Float[Tensor, "images inputs 1 1"]:
    """What the baseline sees of each image: which input it is."""
    return torch.eye(INPUTS).repeat(draws, 1).view(-1, INPUTS, 1, 1)


def _as_costs(flat: Float[Tensor, " images"]) -> Costs:
    return flat.view(-1, INPUTS)


def _learned_baseline(problem: Problem, seed: int) -> LearnedBaseline:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        baseline = LearnedBaseline(INPUTS, _BASELINE_WIDTH, decay=0.99)
    optimizer = torch.optim.Adam(baseline.parameters(), lr=1e-2)
    for _ in range(_BASELINE_STEPS):
        codes = draw_codes(problem.logits.expand(_BASELINE_DRAWS, -1, -1, -1), generator)
        costs = problem.cost_of_codes(codes)
        _, regression = baseline(_inputs(_BASELINE_DRAWS), costs.flatten())
        optimizer.zero_grad()
        regression.backward()
        optimizer.step()
        baseline.after_step()
    return baseline.eval().requires_grad_(False)
