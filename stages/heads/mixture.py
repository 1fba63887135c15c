"""A density over the numbers of one cell: a mixture of diagonal Gaussians.

    p(t given h) = sum_k w_k(h) N(t; mu_k(h), diag sigma_k(h)^2)

GIVT (Tschannen et al. 2023, arXiv:2312.02116, section 3.2) puts it in the place of the softmax, so
that a transformer models continuous latents with an exact likelihood and no quantizer.

Differs: sigma = std_floor + softplus(.), started at 1, the scale of the latents as stored; the
floor bounds the density that a deterministic autoencoder's repeated latents would otherwise drive
to infinity. Guidance: the guided density p_u (p_c / p_u)^g of two mixtures is no mixture. GIVT
rejects draws from a bounding density; here a fixed number of candidates is drawn from the nearer
of the two mixtures and one is kept with its importance weight (sampling-importance-resampling,
Rubin 1987): exact as the number grows, exact for g = 0 and g = 1 already, and always the same
number of uniforms per token.

Above g = 1 the guided density need not exist: where a component of p_c is wider than all of p_u its
tail is lifted by (p_c / p_u)^(g-1) until nothing can be normalised, and candidates would be the
wilder the more of them there are. For two Gaussians the power at which the guided variance stops
being positive is s_u^2 / (s_c^2 - s_u^2). So a row's power g - 1 is bounded by half of what its
mixtures bear in every direction (`power_limit`): the guided tail is then at most sqrt(2) times as
wide as that of p_c, and up to there the importance weights have a variance. Where the class narrows
the density nothing is touched.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.heads.base import Head, HeadOptions, SamplerSettings
from stages.nn.inverse_cdf import index_from_uniform, normal_from_uniform, truncated
from stages.nn.transformer import INITIAL_STD

__all__ = ["DiagonalMixture", "MixtureHead", "MixtureOptions"]

_BEARABLE = 1 / 2
"""Share of the power that cannot be normalised any more, up to which weights have a variance."""

# softplus(_UNIT) = 1: components start as wide as the latents.
_UNIT = math.log(math.e - 1)


class MixtureOptions(HeadOptions):
    """How fine the density is."""

    kind: Literal["mixture"]
    models: ClassVar[LatentKind] = "continuous"
    components: int = Field(gt=0)
    """Gaussians per cell; GIVT: 16."""
    std_floor: float = Field(gt=0)
    """Smallest standard deviation of a component, in the units of the stored latents."""
    guidance_candidates: int = Field(gt=0)
    """Draws per token of which guidance keeps one; unused while guidance is 1."""


@dataclass(frozen=True)
class DiagonalMixture:
    """Mixtures of diagonal Gaussians over `channels` numbers, any number of rows."""

    logits: Float[Tensor, "*rows components"]
    means: Float[Tensor, "*rows components channels"]
    stds: Float[Tensor, "*rows components channels"]

    def log_prob(self, values: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows"]:
        """log p(values) in nats."""
        standardised = (values.unsqueeze(-2) - self.means) / self.stds
        per_number = standardised.square() + math.log(2 * math.pi)
        per_component = -0.5 * per_number.sum(dim=-1) - self.stds.log().sum(dim=-1)
        return torch.logsumexp(F.log_softmax(self.logits, dim=-1) + per_component, dim=-1)

    def tempered(self, settings: SamplerSettings) -> "DiagonalMixture":
        """Component logits divided, improbable components removed, deviations multiplied.

        `temperature` and `variance_temperature` are two things: which component, and how far from
        its mean. GIVT samples with the second alone (0.95; section 3.4).
        """
        logits = self.logits / settings.temperature
        kept = truncated(logits, settings.top_k, settings.top_p, settings.min_p)
        return DiagonalMixture(kept, self.means, self.stds * settings.variance_temperature)

    def power_limit(self, other: "DiagonalMixture") -> Float[Tensor, "*rows"]:
        """A power below which self (self / other)^power can be normalised; inf: any.

        Far out in a direction, the widest component there is the whole mixture. For component k of
        self, component j of the other bears the power p in every direction where in every channel

            (1 + p) / s_k^2 - p / s_j^2 > 0,   that is   p < s_j^2 / (s_k^2 - s_j^2) if s_k > s_j;

        one such j is enough, and every k needs one. Exact for single Gaussians; for mixtures it may
        lie below the true limit, never above.
        """
        own = self.stds.square().unsqueeze(-2)
        others = other.stds.square().unsqueeze(-3)
        in_channel = torch.where(own > others, others / (own - others), torch.inf)
        of_pair = in_channel.amin(dim=-1)
        # Components that truncation removed need nothing, and bear nothing.
        of_pair = of_pair.masked_fill(other.logits.isneginf().unsqueeze(-2), -torch.inf)
        of_component = of_pair.amax(dim=-1).masked_fill(self.logits.isneginf(), torch.inf)
        return of_component.amin(dim=-1)

    def from_uniforms(
        self, uniforms: Float[Tensor, "batch numbers"]
    ) -> Float[Tensor, "batch channels"]:
        """One draw per row: a uniform chooses the component, `channels` more the numbers in it."""
        component = index_from_uniform(self.logits, uniforms[:, 0])
        rows = torch.arange(len(component), device=component.device)
        noise = normal_from_uniform(uniforms[:, 1:])
        return self.means[rows, component] + self.stds[rows, component] * noise


class MixtureHead(Head):
    """Diagonal Gaussian mixture per cell."""

    def __init__(self, options: MixtureOptions, spec: LatentSpec, width: int) -> None:
        super().__init__(options, spec, width)
        self.components, self.channels = options.components, spec.channels
        self.std_floor, self.candidates = options.std_floor, options.guidance_candidates
        self.noise_dim = self.candidates * (1 + self.channels) + 1
        self.project_in = nn.Linear(self.channels, width)
        self.project_out = nn.Linear(width, self.components * (1 + 2 * self.channels))
        nn.init.normal_(self.project_out.weight, std=INITIAL_STD)
        # Means start apart, as draws from N(0, 1): equal components would stay equal.
        biases = torch.zeros(1 + 2 * self.channels, self.components)
        biases[1 : 1 + self.channels].normal_()
        self.project_out.bias.data.copy_(biases.flatten())

    def embed(
        self, tokens: Float[Tensor, "batch tokens channels"]
    ) -> Float[Tensor, "batch tokens width"]:
        """A linear map of the numbers."""
        return self.project_in(tokens)

    def mixture(self, hidden: Float[Tensor, "*rows width"]) -> DiagonalMixture:
        """The density that a hidden state stands for, float32."""
        # bf16 keeps two decimal digits: enough for logits, not for the place of a density.
        with torch.autocast(hidden.device.type, enabled=False):
            numbers = self.project_out(hidden.float())
        numbers = numbers.unflatten(-1, (1 + 2 * self.channels, self.components)).mT
        logits, means, widths = numbers.split([1, self.channels, self.channels], dim=-1)
        return DiagonalMixture(
            logits.squeeze(-1), means, self.std_floor + F.softplus(widths + _UNIT)
        )

    def log_prob(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch tokens"]:
        """log p(numbers given hidden) in nats per token, of the latents as stored."""
        return self.mixture(hidden).log_prob(tokens.float())

    @torch.no_grad()
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Float[Tensor, "batch channels"]:
        """The numbers of one cell per row.

        Temperatures and truncation act on both mixtures before guidance does.
        """
        with_class = self.mixture(hidden).tempered(settings)
        numbers = 1 + self.channels
        if unconditional is None:
            return with_class.from_uniforms(uniforms[:, :numbers])
        without_class = self.mixture(unconditional).tempered(settings)
        if settings.guidance < 1:
            proposal, power = without_class, torch.full_like(uniforms[:, 0], settings.guidance)
        else:
            proposal = with_class
            bearable = _BEARABLE * with_class.power_limit(without_class)
            power = bearable.clamp(max=settings.guidance - 1)
        draws = torch.stack(
            [
                proposal.from_uniforms(uniforms[:, i * numbers : (i + 1) * numbers])
                for i in range(self.candidates)
            ]
        )
        ratios = with_class.log_prob(draws) - without_class.log_prob(draws)
        chosen = index_from_uniform(power.unsqueeze(1) * ratios.mT, uniforms[:, -1])
        return draws[chosen, torch.arange(len(chosen), device=chosen.device)]
