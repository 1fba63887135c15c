"""Gradients through a draw that has none: the score function, and a baseline that quiets it.

For codes c drawn from q with parameters phi and a cost d(c) that is looked at, not differentiated,

    gradient of E_q[d(c)] with respect to phi = E_q[(d(c) - b) * gradient of log q(c)]

for every b that the draw does not move, because E_q[gradient of log q] = 0 (REINFORCE, Williams
1992). It is exact on average, and noisy: b should be near E_q[d(c)]. Here b looks at the input
(NVIL, Mnih & Gregor 2014, arXiv:1402.0030, sections 2.3 and 2.4):

    b(x) = mean + std * network(features of x)

with the mean and the standard deviation of the costs lately, so that the network learns numbers
around 1 whatever the costs' scale and wherever training has brought them.

Differs: NVIL divides the signal d - b by its running standard deviation, too. The signal here
stays in nats: divided, it would no longer weigh against the KL, whose gradient is exact, as the
evidence lower bound asks; and the optimiser divides by its own moments anyway.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.core.shapes import Features, Nats
from stages.nn.convolution import AFTER_SILU, LINEAR, convolution, start_weights
from stages.nn.processes import mean_over_pieces

__all__ = ["LearnedBaseline", "score_function_loss"]

# In nats; costs that differ by less count as equal.
_SMALLEST_STD = 1e-3


def score_function_loss(log_prob: Nats, signal: Nats) -> Float[Tensor, ""]:
    """A loss worth 0 whose gradient is the batch mean of signal * gradient of log_prob.

    Args:
        log_prob: log q of what was drawn, with its gradient.
        signal: cost - baseline in nats; taken as a number.
    """
    loss = (signal.detach() * log_prob).mean()
    return loss - loss.detach()


class LearnedBaseline(nn.Module):
    """What a cost is expected to be, given features.

    Args:
        maps: Width of the features.
        width: Hidden units.
        decay: Of the running moments, per batch.

    Attributes:
        mean: Running mean of the costs, nats.
        variance: Running mean square of their distance from `mean`, nats squared.
        batches: How many were seen.
    """

    mean: Float[Tensor, ""]
    variance: Float[Tensor, ""]
    batches: Int[Tensor, ""]

    def __init__(self, maps: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.hidden = convolution(maps, width, 1, gain=LINEAR)
        self.out = nn.Linear(width, 1)
        # A small start: at first the running mean is all that is known.
        start_weights(self.out.weight, width, 0.1 * AFTER_SILU)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self._costs: list[Tensor] = []

    def forward(self, features: Features, cost: Nats) -> tuple[Nats, Float[Tensor, ""]]:
        """What was not expected of the cost, and how badly the network expects.

        The signal is taken against what earlier batches taught: a baseline that has seen this
        draw would bend the gradient. Of a first batch nothing was expected, and it gives none.
        In training the moments follow when the step is over.

        Args:
            features: One grid per image.
            cost: Of each image, in nats.

        Returns:
            cost - b(x) in nats, without a gradient; and the network's mean squared error in units
            of the running variance, with one.
        """
        cost = cost.detach()
        hidden = F.silu(self.hidden(features.detach()))
        # The mean over cells, as the cost is a sum over places.
        predicted = self.out(hidden.mean(dim=(2, 3))).squeeze(1)
        expected = self.mean + _std(self.variance) * predicted.detach()
        signal = torch.where(self.batches > 0, cost - expected, torch.zeros_like(cost))
        mean, std = self.mean, _std(self.variance)
        if self.training:
            self._costs.append(cost)
            # As if the step had no other piece: the network need not wait for the others.
            mean, variance = self._followed(cost.mean(), lambda m: (cost - m).square().mean())
            std = _std(variance)
        return signal, F.mse_loss(predicted, (cost - mean) / std)

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the moments follow the costs of the step."""
        if not self._costs:
            return
        costs = list(self._costs)
        self._costs.clear()
        mean, variance = self._followed(
            mean_over_pieces([cost.mean() for cost in costs]),
            lambda m: mean_over_pieces([(cost - m).square().mean() for cost in costs]),
        )
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        self.batches += 1

    def _followed(
        self, mean: Tensor, spread_around: Callable[[Tensor], Tensor]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The moments after one more batch of this mean, and of a spread around the new mean."""
        # Until 1 / (1 - decay) batches are seen, the plain mean of them.
        pull = (1 / (self.batches + 1)).clamp_min(1 - self.decay)
        moved = self.mean.lerp(mean, pull)
        return moved, self.variance.lerp(spread_around(moved), pull)


def _std(variance: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return variance.sqrt().clamp_min(_SMALLEST_STD)
