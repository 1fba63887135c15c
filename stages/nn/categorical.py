"""One of K codes by chance: what it costs, how it is drawn, and what a gradient can pass through.

With logits l and q = softmax(l) in each cell,

    KL(q || uniform) = log K + sum over k of q_k log q_k                      nats, exact
    code = argmax over k of l_k + g_k,    g_k = -log(-log u_k),  u_k ~ U(0, 1)    a draw of q
    y = softmax((l + g) / tau)                                     its relaxation, on the simplex

The maximum is Gumbel's (Maddison et al. 2014); the relaxation is the Gumbel-Softmax or concrete
distribution (Jang et al. 2016, arXiv:1611.01144, Eq. 2; Maddison et al. 2016, arXiv:1611.00712).
y has a gradient with respect to l and tends to the one-hot code as tau tends to 0; at tau above 0 a
gradient through it is that of another problem: biased, the less the smaller tau, and the noisier.

Straight-through: the one-hot code forward, the gradient of y backward (Jang et al. 2016, section
2.2). What comes later sees codes only; the bias does not vanish with tau.

Categories are the last axis. Callers switch autocast off: small differences of logits decide.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.core.shapes import Features, FeatureShape
from stages.nn.convolution import LINEAR, convolution
from stages.nn.processes import from_first_process

__all__ = [
    "CodeLogits",
    "draw_codes",
    "gumbel_noise",
    "kl_to_uniform",
    "log_prob",
    "relaxed_codes",
    "straight_through_codes",
]

Logits = Float[Tensor, "*cells codes"]
Simplex = Float[Tensor, "*cells codes"]
PerCell = Float[Tensor, "*cells"]

# A code whose logit hardly varies over the data is not blown up to vary.
_SMALLEST_STD = 1e-3


def kl_to_uniform(logits: Logits) -> PerCell:
    """KL from the uniform distribution over codes, in nats: 0 to log(codes)."""
    log_q = F.log_softmax(logits, dim=-1)
    # Rounding alone can fall below zero.
    return (math.log(logits.shape[-1]) + (log_q.exp() * log_q).sum(dim=-1)).clamp_min(0)


def log_prob(logits: Logits, codes: Int[Tensor, "*cells"]) -> PerCell:
    """log q(codes) of each cell, in nats."""
    log_q = F.log_softmax(logits, dim=-1)
    return log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1)


def gumbel_noise(logits: Logits, generator: torch.Generator | None) -> Logits:
    """Standard Gumbel noise for logits of this shape."""
    device = logits.device if generator is None else generator.device
    uniform = torch.rand(logits.shape, generator=generator, device=device, dtype=logits.dtype)
    # 0 can be drawn, 1 cannot. In place: there is one number for every code of every cell.
    smallest = torch.finfo(logits.dtype).tiny
    return uniform.to(logits.device).clamp_min_(smallest).log_().neg_().log_().neg_()


def draw_codes(logits: Logits, generator: torch.Generator | None) -> Int[Tensor, "*cells"]:
    """Codes drawn from softmax(logits), without a gradient."""
    return (logits.detach() + gumbel_noise(logits, generator)).argmax(dim=-1)


def relaxed_codes(
    logits: Logits, tau: float | Float[Tensor, ""], generator: torch.Generator | None
) -> Simplex:
    """A draw of the Gumbel-Softmax distribution; its largest number stands at a draw of q.

    Args:
        logits: Unnormalised log-probabilities.
        tau: Temperature, above 0.
        generator: Source of the noise.
    """
    return F.softmax((logits + gumbel_noise(logits, generator)) / tau, dim=-1)


def straight_through_codes(relaxed: Simplex) -> Simplex:
    """The one-hot code of a relaxed one, exactly, with the gradient of the relaxed one."""
    codes = relaxed.argmax(dim=-1, keepdim=True)
    hard = torch.zeros_like(relaxed).scatter_(-1, codes, 1.0)
    # In this order: `relaxed - relaxed` is zero without rounding.
    return hard + (relaxed - relaxed.detach())


class CodeLogits(nn.Module):
    """Logits of the codes of each cell: a 1x1 convolution that can start level on data.

    A code whose logit is low everywhere at the start is seldom drawn, hardly learned, and avoided
    ever after. So each code's logits are moved and scaled to mean 0 and one standard deviation over
    the first features (as Salimans & Kingma 2016, arXiv:1602.07868, section 3): every code starts
    with the same share of the data, and cells differ in which.

    Args:
        features: Shape of the features.
        num_codes: Codes to choose from.
        start_std: Standard deviation of each logit over data at the start: how decided it starts.
    """

    def __init__(self, features: FeatureShape, num_codes: int, start_std: float) -> None:
        super().__init__()
        self.start_std = start_std
        self.layer = convolution(features.width, num_codes, 1, gain=start_std * LINEAR)

    def forward(self, features: Features) -> Float[Tensor, "batch grid_height grid_width codes"]:
        """Logits, codes last."""
        return self.layer(features).permute(0, 2, 3, 1)

    @torch.no_grad()
    def start_from_data(self, features: Features) -> None:
        """Level the codes over these features."""
        logits = self(features).flatten(0, 2)
        scale = self.start_std / logits.std(dim=0, correction=0).clamp_min(_SMALLEST_STD)
        mean = logits.mean(dim=0)
        bias = self.layer.bias
        assert bias is not None
        self.layer.weight.copy_(from_first_process(self.layer.weight * scale.view(-1, 1, 1, 1)))
        bias.copy_(from_first_process((bias - mean) * scale))
