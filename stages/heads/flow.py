"""The numbers of one cell, carried from noise by a velocity field that the hidden state sets.

    x_t = (1 - t) e + t x,   e ~ N(0, I),  t in [0, 1]
    v(x_t, t, h) learns E[x - e given x_t, h]        by mean square error
    dx/dt = v(x, t, h) from e at t = 0 to a token at t = 1
    log p(x) = log N(x_0; 0, I) - integral of div v(x_t, t, h) dt      along the way back from x

Rectified flow (Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747), one small
network per token (stages/nn/token_mlp.py) as MAR's diffusion loss has (Li et al. 2024,
arXiv:2406.11838). The density is that of the continuous flow, by the instantaneous change of
variables (Chen et al. 2018, arXiv:1806.07366, Eq. 8). A token has few numbers, so the divergence is
its exact trace, one derivative per number, and not an estimate; what error there is comes from the
steps of the solver.

Training minimises E||x - e - v||^2 / channels, which is no likelihood; validation looks at the
density. Several draws of (t, e) per token use one hidden state, as MAR does.

Differs: v = a(t) x_t + network, a(t) = (2 t - 1) / (t^2 + (1 - t)^2), the field of standard normal
data: an untrained head is N(0, I), and the network learns what is different. Guidance mixes
velocities; `variance_temperature` multiplies the noise at the start. The network computes in
float32 for density and samples, and in the training's precision for the loss.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.heads.base import CHOICES, Exactness, Head, HeadOptions, SamplerSettings
from stages.nn.inverse_cdf import normal_from_uniform
from stages.nn.ode import Solver, integrated
from stages.nn.token_mlp import TokenMLP, guided

__all__ = ["FlowHead", "FlowOptions"]

_ROWS = 8192
"""Tokens whose density is followed at once: each needs its derivatives in memory."""

Numbers = Float[Tensor, "rows channels"]


class FlowOptions(HeadOptions):
    """How large the field is, how it is taught, and how finely it is followed."""

    kind: Literal["flow"]
    models: ClassVar[LatentKind] = "continuous"
    # It draws numbers: there is no list to choose from.
    meaningless: ClassVar[tuple[str, ...]] = CHOICES
    blocks: int = Field(gt=0)
    """Residual blocks of the network."""
    width: int = Field(gt=0)
    """Of the network; the transformer's may be another."""
    draws: int = Field(gt=0)
    """Times and noises per token in a training step; MAR: 4."""
    times: Literal["uniform", "logit_normal"]
    """How training draws t: uniform, or sigmoid(N(0, 1)), which looks at the middle more often
    (Esser et al. 2024, arXiv:2403.03206, section 3.1)."""
    solver: Solver
    """euler, midpoint, heun or rk4: 1, 2, 2 or 4 evaluations of the network per step."""
    sampling_steps: int = Field(gt=0)
    """Steps from noise to a token."""
    density_steps: int = Field(gt=0)
    """Steps back, with the divergence."""

    @property
    def log_prob_is(self) -> Exactness:
        """Integrated: the error is the solver's."""
        how = f"change of variables along the flow, exact divergence, {self.density_steps} steps"
        return Exactness("approximate", f"{how} of {self.solver}")


class FlowHead(Head):
    """Rectified flow per cell."""

    def __init__(self, options: FlowOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.options, self.channels = options, spec.channels
        self.noise_dim = self.channels
        self.project_in = nn.Linear(self.channels, width)
        self.network = TokenMLP(self.channels, width, options.width, options.blocks)

    def embed(
        self, tokens: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch tokens width"]:
        """A linear map of the numbers."""
        return self.project_in(tokens)

    def velocity(
        self,
        numbers: Float[Tensor, "*rows channels"],
        times: Float[Tensor, "*#rows"],
        condition: Float[Tensor, "*rows mlp_width"],
    ) -> Float[Tensor, "*rows channels"]:
        """v: the field of standard normal data, and what the network adds."""
        moved = self.network(numbers, times, condition)
        return moved + numbers * _of_standard_normal(times).unsqueeze(-1)

    def loss(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch tokens"]:
        """Mean square error of the velocity per number, over the draws."""
        shape = (self.options.draws, *tokens.shape)
        condition = self.network.condition(hidden).expand(*shape[:-1], -1)
        noise = torch.randn(shape, device=tokens.device)
        if self.options.times == "uniform":
            times = torch.rand(shape[:-1], device=tokens.device)
        else:
            times = torch.randn(shape[:-1], device=tokens.device).sigmoid()
        between = torch.lerp(noise, tokens.expand(shape), times.unsqueeze(-1))
        missed = tokens - noise - self.velocity(between, times, condition).float()
        return missed.square().mean(dim=(0, -1))

    def log_prob(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch tokens"]:
        """log p(numbers given hidden) in nats per token but for the solver; without gradient."""
        rows = zip(
            hidden.float().flatten(0, 1).split(_ROWS),
            tokens.float().flatten(0, 1).split(_ROWS),
            strict=True,
        )
        # Inference mode would hide the derivatives of the field.
        with torch.inference_mode(False), torch.no_grad():
            found = [self._log_prob(state.clone(), numbers.clone()) for state, numbers in rows]
        return torch.cat(found).view(tokens.shape[:-1])

    def _log_prob(
        self, hidden: Float[Tensor, "rows width"], numbers: Numbers
    ) -> Float[Tensor, " rows"]:
        with torch.autocast(hidden.device.type, enabled=False):
            condition = self.network.condition(hidden)

            def field(state: Tensor, time: float) -> Tensor:
                here, times = state[:, :-1], state.new_full((len(state),), time)
                slope, trace = _with_divergence(lambda x: self.velocity(x, times, condition), here)
                return torch.cat([slope, trace.unsqueeze(1)], dim=1)

            # One more number per row: the divergence gathered so far.
            state = torch.cat([numbers, numbers.new_zeros(len(numbers), 1)], dim=1)
            state = integrated(
                field, state, 1.0, 0.0, self.options.density_steps, self.options.solver
            )
        noise, gathered = state[:, :-1], state[:, -1]
        of_noise = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(dim=1)
        return of_noise + gathered

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Float[Tensor, "batch channels"]:
        """The numbers of one cell per row: noise, followed to t = 1.

        Raises:
            ParamsError: If temperature is not 1 or truncation would drop anything.
        """
        self.options.check_settings(settings)
        with torch.autocast(hidden.device.type, enabled=False):
            told = self.network.condition(hidden.float())
            told_less = None
            if unconditional is not None:
                told_less = self.network.condition(unconditional.float())

            def field(state: Tensor, time: float) -> Tensor:
                times = state.new_full((len(state),), time)
                return guided(
                    lambda condition: self.velocity(state, times, condition),
                    told,
                    told_less,
                    settings.guidance,
                )

            noise = settings.variance_temperature * normal_from_uniform(uniforms.float())
            return integrated(
                field, noise, 0.0, 1.0, self.options.sampling_steps, self.options.solver
            )


def _of_standard_normal(times: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """a of E[x - e given x_t] = a x_t where x is standard normal too."""
    return (2 * times - 1) / (times.square() + (1 - times).square())


def _with_divergence(
    field: Callable[[Tensor], Tensor], at: Numbers
) -> tuple[Numbers, Float[Tensor, " rows"]]:
    """A field that acts on every row alone, and its divergence, by one derivative per number."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        values = field(at)
        trace = torch.zeros_like(values[:, 0])
        for number, value in enumerate(values.unbind(dim=1)):
            # Rows do not meet: the gradient of their sum is the gradient of each.
            [slopes] = torch.autograd.grad(value.sum(), at, retain_graph=True)
            trace = trace + slopes[:, number]
    return values.detach(), trace
