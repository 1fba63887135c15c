"""The numbers of one cell, drawn by taking noise away step by step, as the hidden state says.

    x_t = cos(a) x + sin(a) e,   e ~ N(0, I),   a = f + t (pi/2 - 2 f),   t in [0, 1]
    v(x_t, t, h) learns cos(a) e - sin(a) x                              by mean square error
    guess of x: cos(a) x_t - sin(a) v         guess of e: sin(a) x_t + cos(a) v

The diffusion loss of MAR (Li et al. 2024, arXiv:2406.11838, section 3.2): a small network per token
(stages/nn/token_mlp.py), conditioned on the state of an autoregressive model, in place of a density
written down. Several draws of (t, e) per token share one hidden state (section 4.2 there).

There is no exact density. `log_prob` is the variational bound of the chain in infinitely small
steps (Kingma et al. 2021, arXiv:2107.00630, Eq. 15): with l = log of cos(a)^2 / sin(a)^2, in nats,

    -log p(x) <= KL(q(x_1 given x) || N(0, I)) + channels/2 (log 2 pi - l_0)
                 + 1/2 E||e - guess||^2 at t = 0  +  1/2 integral over l of E||e - guess||^2

Sum and integral are taken at a few points per token: l drawn in proportion to what an error of v
weighs there, e normal, from a scrambled Sobol sequence (Owen 1995), each e with its opposite. The
sequence is shifted, modulo one (Cranley & Patterson 1976), by a hash of the token: points that all
tokens shared would leave an error that no amount of data averages out. What is looked at is the
difference to the error of v = 0, whose sum and integral are known. So each number is a function of
its token, and -`log_prob` an upper bound in the mean over data, with the spread of its points.

Samples take steps evenly spaced in t (Song et al. 2020, arXiv:2010.02502, Eqs. 12 and 16): with
`eta` 1 those of the chain, with fresh noise each; with 0 a token is a function of its first noise.

Differs: MAR guesses e at one of 1000 levels of the cosine schedule and learns the variance of the
steps. Here time is continuous and the schedule is cut at both ends by the same angle: with 1000
steps of fixed variance the bound is 0.4 nats per number above -log p even for standard normal
data, with infinitely many it is tight. The velocity v (Salimans & Ho 2022, arXiv:2202.00512) is the
same guess in coordinates in which a small error stays small where hardly any signal is left; v = 0,
which an untrained network gives, is standard normal data. Guidance mixes guesses.
`variance_temperature` multiplies the noise of the steps, as the temperature of MAR does, and that
of the start where there is no other. The network computes in float32 for bound and samples, and in
the training's precision for the loss.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.randomness import torch_stream
from stages.heads.base import CHOICES, Exactness, Head, HeadOptions, SamplerSettings
from stages.nn.inverse_cdf import normal_from_uniform
from stages.nn.token_mlp import TokenMLP, guided

__all__ = ["DiffusionHead", "DiffusionOptions"]

_SCRAMBLING = 20_240_611
"""Seed of the points of the bound."""
_HASHED_BITS = 24
"""Of a shift: as many as float32 holds between 0 and 1."""

Numbers = Float[Tensor, "*rows channels"]
Times = Float[Tensor, "*#rows"]
Condition = Float[Tensor, "*rows mlp_width"]


class DiffusionOptions(HeadOptions):
    """How large the network is, how it is taught, and how finely noise is taken away."""

    kind: Literal["diffusion"]
    models: ClassVar[LatentKind] = "continuous"
    # It draws numbers: there is no list to choose from.
    meaningless: ClassVar[tuple[str, ...]] = CHOICES
    blocks: int = Field(gt=0)
    """Residual blocks of the network; MAR: 3 to 12."""
    width: int = Field(gt=0)
    """Of the network; the transformer's may be another."""
    draws: int = Field(gt=0)
    """Times and noises per token in a training step; MAR: 4."""
    noise_floor: float = Field(gt=0, lt=0.2)
    """Noise beside the signal at t = 0 (the angle f): the finest detail of the density, in the
    units of the stored latents."""
    sampling_steps: int = Field(gt=1)
    """Passes of the network per token; MAR: 100."""
    eta: float = Field(ge=0, le=1)
    """Fresh noise at each step: 1 as much as the chain has, 0 none."""
    bound_points: int = Field(gt=0)
    """Times per token at which the bound is looked at, each with a noise and its opposite."""

    @property
    def log_prob_is(self) -> Exactness:
        """A bound."""
        how = f"lower bound: variational, {self.bound_points} pairs of noises per token"
        return Exactness("bound", how)


class DiffusionHead(Head):
    """Denoising diffusion per cell."""

    def __init__(self, options: DiffusionOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.options, self.channels = options, spec.channels
        self.noise_dim = self.channels * (options.sampling_steps if options.eta else 1)
        self.project_in = nn.Linear(self.channels, width)
        self.network = TokenMLP(self.channels, width, options.width, options.blocks)
        points = torch.quasirandom.SobolEngine(1 + self.channels, scramble=True, seed=_SCRAMBLING)
        self.register_buffer("points", points.draw(options.bound_points), persistent=False)
        stream = torch_stream(_SCRAMBLING, "hash of tokens")
        limits, shape = torch.iinfo(torch.int64), (self.channels, 1 + self.channels)
        hashing = torch.randint(limits.min, limits.max, shape, generator=stream)
        self.register_buffer("hashing", hashing | 1, persistent=False)
        self.weight = 0.5 * sum(self._masses())

    def embed(
        self, tokens: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch tokens width"]:
        """A linear map of the numbers."""
        return self.project_in(tokens)

    def loss(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch tokens"]:
        """Mean square error of the velocity per number, over the draws; no nats."""
        shape = (self.options.draws, *tokens.shape)
        condition = self.network.condition(hidden).expand(*shape[:-1], -1)
        noise = torch.randn(shape, device=tokens.device)
        times = torch.rand(shape[:-1], device=tokens.device)
        missed, _ = self._missed(tokens.expand(shape), noise, times, condition)
        return missed.square().mean(dim=(0, -1))

    def log_prob(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch tokens"]:
        """A lower bound of log p(numbers given hidden), in nats per token."""
        tokens = tokens.float()
        with torch.autocast(hidden.device.type, enabled=False):
            condition = self.network.condition(hidden.float())
            shift = self._hash(tokens)
            # One point for all tokens at a time: no more memory than a step of training.
            gain = torch.zeros_like(tokens[..., 0])
            for point in self.points:
                uniforms = (point + shift).remainder(1)
                times, noise = self._bound_times(uniforms[..., 0]), uniforms[..., 1:]
                half = normal_from_uniform(noise)
                for noise in (half, -half):
                    missed, asked = self._missed(tokens, noise, times, condition)
                    gain += (asked.square() - missed.square()).sum(dim=-1)
        gain *= self.weight / (2 * len(self.points))
        return gain - self._cost_of_silence(tokens)

    def _hash(self, tokens: Numbers) -> Float[Tensor, "*rows shifts"]:
        """Numbers in [0, 1), one for the time and one for each noise, as random as they are fixed.

        The leading bits of a sum of products (Dietzfelbinger 1996, "Universal hashing and k-wise
        independent random variables via integer arithmetic without primes").

        Whole numbers: float32 modulo one is coarse where tokens or their products are large, so
        that 0 comes up too often, and with it noise of more than its variance.
        """
        # Zero has two signs, and one hash.
        bits = (tokens + 0.0).view(torch.int32).long()
        sums = (bits.unsqueeze(-1) * self.hashing).sum(dim=-2)
        leading = (sums >> (64 - _HASHED_BITS)) & (2**_HASHED_BITS - 1)
        return leading.float() / 2**_HASHED_BITS

    def _angles(self, times: Times) -> Times:
        floor = self.options.noise_floor
        return floor + times * (0.5 * math.pi - 2 * floor)

    def _masses(self) -> tuple[float, float]:
        """Twice what errors of v weigh in the bound: over the integral, and once more at t = 0.

        An error of e is cos(a) times that of v, and cos(a)^2 = sigmoid(l), whose integral over l is
        softplus(l) = -2 log sin(a).
        """
        floor = self.options.noise_floor
        return 2 * math.log(math.cos(floor) / math.sin(floor)), math.cos(floor) ** 2

    def _bound_times(self, uniforms: Times) -> Times:
        """Times at which the bound looks, drawn as errors of v weigh in it."""
        floor = self.options.noise_floor
        integral, once = self._masses()
        # What lies beyond the integral is the single term at t = 0.
        places = (uniforms * (integral + once)).clamp(max=integral)
        sines = math.cos(floor) * torch.exp(-0.5 * places)
        return ((sines.asin() - floor) / (0.5 * math.pi - 2 * floor)).clamp(0, 1)

    def _velocity(self, numbers: Numbers, times: Times, condition: Condition) -> Numbers:
        return self.network(numbers, times, condition).float()

    def _missed(
        self, tokens: Numbers, noise: Numbers, times: Times, condition: Condition
    ) -> tuple[Numbers, Numbers]:
        """v less what the network gives, and v, of tokens with noise at these times."""
        angles = self._angles(times).unsqueeze(-1)
        signal, blur = angles.cos(), angles.sin()
        asked = signal * noise - blur * tokens
        return asked - self._velocity(signal * tokens + blur * noise, times, condition), asked

    def _cost_of_silence(self, tokens: Numbers) -> Float[Tensor, "*rows"]:
        """The bound of -log p in nats if the network gave v = 0, whose mean errors are known.

        They are cos(a)^2 channels + sin(a)^2 ||x||^2, and the weights 1/2 cos(a)^2 dl, with
        cos(a)^2 sin(a)^2 dl = d sigmoid(l); at t = 0 once more.
        """
        near, far = math.cos(self.options.noise_floor) ** 2, math.sin(self.options.noise_floor) ** 2
        of_token = 0.5 * (near - far + near * far)
        length = tokens.square().sum(dim=-1)
        walk = (self.weight - of_token) * self.channels + of_token * length
        # KL(q(x_1 given x) || N(0, I)): of mean sin(f) x, variance cos(f)^2.
        start = 0.5 * (self.channels * (near - 1 - math.log(near)) + far * length)
        last = 0.5 * self.channels * math.log(2 * math.pi * far / near)
        return walk + start + last

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Float[Tensor, "batch channels"]:
        """The numbers of one cell per row: noise, taken away.

        Raises:
            ParamsError: If temperature is not 1 or truncation would drop anything.
        """
        self.options.check_settings(settings)
        with torch.autocast(hidden.device.type, enabled=False):
            told = self.network.condition(hidden.float())
            told_less = None
            if unconditional is not None:
                told_less = self.network.condition(unconditional.float())

            def guesses(state: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
                times = time.expand(len(state))
                velocity = guided(
                    lambda condition: self._velocity(state, times, condition),
                    told,
                    told_less,
                    settings.guidance,
                )
                angle = self._angles(time)
                signal, blur = angle.cos(), angle.sin()
                return signal * state - blur * velocity, blur * state + signal * velocity

            return self._denoised(guesses, uniforms.float(), settings.variance_temperature)

    def _denoised(
        self,
        guesses: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        uniforms: Float[Tensor, "batch noise_dim"],
        warmth: float,
    ) -> Float[Tensor, "batch channels"]:
        """Tokens at the end of the steps; `guesses` gives token and noise from state and time."""
        eta, steps = self.options.eta, self.options.sampling_steps
        first, *fresh = normal_from_uniform(uniforms).split(self.channels, dim=1)
        state = first if eta else warmth * first
        times = torch.linspace(1, 0, steps, device=state.device)
        angles = self._angles(times)
        for step, time in enumerate(times[:-1]):
            token, noise = guesses(state, time)
            (signal, lower_signal), (blur, lower_blur) = (
                (part[step], part[step + 1]) for part in (angles.cos(), angles.sin())
            )
            added = eta * (1 - (signal / lower_signal).square()).sqrt() * lower_blur / blur
            kept = (lower_blur.square() - added.square()).clamp_min(0).sqrt()
            state = lower_signal * token + kept * noise
            if eta:
                state = state + warmth * added * fresh[step]
        return guesses(state, times[-1])[0]
