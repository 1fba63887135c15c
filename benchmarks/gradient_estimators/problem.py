"""A discrete autoencoder so small that its gradient is a sum over everything.

Each of a few inputs has its own logits for three categorical variables (an encoder that is a
table) and its own target; the decoder mixes a shared codebook's vectors and passes them through a
layer of tanh. The cost is a Gaussian's:

    cost(y) = ||target - W2 tanh(W1 [y_1 E, y_2 E, y_3 E])||^2 / (2 sigma^2)         nats

for one-hot y (codes) and for everything between them (relaxations). With 6 codes there are
6^3 = 216 outcomes, so E_q[cost] and its gradient with respect to the logits are exact.

The weights are drawn once and large enough that the cost is far from linear: between one code and
another it bends, as a real decoder does.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["INPUTS", "NUM_CODES", "VARIABLES", "Problem", "make_problem"]

INPUTS, VARIABLES, NUM_CODES = 4, 3, 6
_DIM, _HIDDEN, _OUTPUTS = 5, 16, 8
_SIGMA = 0.7
_LOGIT_STD = 1.0
_BEND = 1.5

Mixtures = Float[Tensor, "*draws inputs variables codes"]
Gradient = Float[Tensor, "inputs variables codes"]


@dataclass(frozen=True)
class Problem:
    """Logits, and what codes cost."""

    logits: Float[Tensor, "inputs variables codes"]
    codebook: Float[Tensor, "codes dim"]
    first: Float[Tensor, "joined hidden"]
    second: Float[Tensor, "hidden outputs"]
    targets: Float[Tensor, "inputs outputs"]

    def cost(self, mixtures: Mixtures) -> Float[Tensor, "*draws inputs"]:
        """Nats per input, for one-hot codes or relaxed ones."""
        vectors = (mixtures @ self.codebook.to(mixtures)).flatten(-2)
        hidden = torch.tanh(vectors @ self.first.to(mixtures))
        errors = hidden @ self.second.to(mixtures) - self.targets.to(mixtures)
        return errors.square().sum(dim=-1) / (2 * _SIGMA**2)

    def cost_of_codes(
        self, codes: Int[Tensor, "*draws inputs variables"]
    ) -> Float[Tensor, "*draws inputs"]:
        """Nats per input."""
        return self.cost(F.one_hot(codes, NUM_CODES).to(self.logits))

    def expected_cost(
        self, logits: Float[Tensor, "inputs variables codes"]
    ) -> Float[Tensor, " inputs"]:
        """E_q[cost] of each input, by summing over all codes."""
        outcomes = torch.tensor(list(itertools.product(range(NUM_CODES), repeat=VARIABLES)))
        everywhere = F.one_hot(outcomes, NUM_CODES).to(logits).unsqueeze(1)
        costs = self.cost(everywhere.expand(-1, INPUTS, -1, -1))
        log_q = (everywhere * F.log_softmax(logits, dim=-1)).sum(dim=(2, 3))
        return (log_q.exp() * costs).sum(dim=0)

    def exact_gradient(self) -> Gradient:
        """Gradient of the inputs' summed E_q[cost] with respect to the logits, float64."""
        logits = self.logits.double().requires_grad_()
        [gradient] = torch.autograd.grad(self.expected_cost(logits).sum(), logits)
        return gradient


def make_problem(seed: int) -> Problem:
    """A problem from one stream of normal numbers."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(*shape, generator=generator)

    joined = VARIABLES * _DIM
    return Problem(
        logits=normal(INPUTS, VARIABLES, NUM_CODES, std=_LOGIT_STD),
        codebook=normal(NUM_CODES, _DIM, std=1.0),
        first=normal(joined, _HIDDEN, std=_BEND / math.sqrt(joined)),
        second=normal(_HIDDEN, _OUTPUTS, std=1 / math.sqrt(_HIDDEN)),
        targets=normal(INPUTS, _OUTPUTS, std=1.0),
    )
