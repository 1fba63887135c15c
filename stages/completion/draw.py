"""Completions of one image: the unknown cells given the known ones, from an autoregressive prior.

    p(unknown given known) ~ p(known, unknown) = prod_t p(z_t given z_<t)

The prior walks over the cells in its own order with known ones put in place. If they all come first
the walk is a draw of p(unknown given known), and nothing else is needed. Otherwise a cell is drawn
without looking at known cells that come later, from q(unknown) = prod over unknown t, and

    w = p(known, unknown) / q(unknown) = prod over known t of p(z_t given z_<t)

weighs how well they fit (likelihood weighting: Fung & Chang 1990). Of K candidates one is kept with
probability w / sum(w) (sampling-importance-resampling: Rubin 1987): exact as K grows, for a mask
that leaves few nats of known cells to chance with few, for others with very many. The effective
number of candidates (sum w)^2 / sum(w^2), near 1 when one takes all, says how far that is.

Temperature, truncation and guidance shape how unknown cells are drawn; the weights are the model's.

Candidate n of an image comes from the stream (seed, "completion", image, "candidate", n), and
completion k chooses among candidates k K to k K + K - 1 by (seed, "completion", image, "choice",
k): it depends on seed, image, k and K, not on how many completions are asked for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.randomness import numpy_stream
from stages.core.shapes import Labels
from stages.heads.base import SamplerSettings
from stages.nn.completion import Completion, KnownLatents
from stages.nn.inverse_cdf import index_from_uniform
from stages.priors.base import Prior
from stages.sampling.draw import GROUP

__all__ = ["Completed", "Completer"]


@dataclass(frozen=True)
class Completed:
    """Completions of one image."""

    latents: Tensor
    """As the prior's, one row per completion."""
    exact: bool
    """Whether they are draws of the prior's own conditional distribution."""
    effective_candidates: Float[np.ndarray, " count"]
    """Of each completion; 1 where exact, with a single candidate."""


class Completer:
    """Draws completions of images.

    Args:
        prior: In evaluation mode.
        settings: How unknown cells are drawn.
        candidates: Of each completion, where it is not exact.
        seed: Of all of them.
    """

    def __init__(self, prior: Prior, settings: SamplerSettings, candidates: int, seed: int) -> None:
        self.prior, self.settings = prior, settings
        self.candidates, self.seed = candidates, seed

    @torch.inference_mode()
    def complete(self, known: KnownLatents, label: int | None, image: int, count: int) -> Completed:
        """Some completions of an image.

        Args:
            known: One row: what is known of it.
            label: Its class; None: none is told.
            image: Names its streams.
            count: How many completions.

        Raises:
            ParamsError: If the prior cannot complete, or cannot do what the settings ask for.
        """
        first = self._candidates(known, label, image, 0)
        each = 1 if first.exact else self.candidates
        blocks = [first]
        while len(blocks) * GROUP < count * each:
            blocks.append(self._candidates(known, label, image, len(blocks)))
        latents = torch.cat([block.latents for block in blocks])[: count * each]
        if each == 1:
            return Completed(latents, first.exact, np.ones(count))
        weights = torch.cat([block.log_weight for block in blocks])[: count * each]
        by_completion = weights.double().view(count, each)
        choice = [
            numpy_stream(self.seed, "completion", image, "choice", k).random() for k in range(count)
        ]
        chosen = index_from_uniform(by_completion, torch.tensor(choice).to(by_completion))
        shares = by_completion.softmax(dim=1)
        effective = 1 / shares.square().sum(dim=1)
        rows = chosen + each * torch.arange(count, device=chosen.device)
        return Completed(latents[rows], False, effective.cpu().numpy())

    def _candidates(
        self, known: KnownLatents, label: int | None, image: int, block: int
    ) -> Completion:
        numbers = np.stack(
            [
                numpy_stream(self.seed, "completion", image, "candidate", n).random(
                    self.prior.noise_shape, dtype=np.float32
                )
                for n in range(block * GROUP, (block + 1) * GROUP)
            ]
        )
        device = known.latents.device
        uniforms = torch.from_numpy(np.maximum(numbers, np.float32(2.0**-25))).to(device)
        labels: Labels | None = None
        if label is not None:
            labels = torch.full((GROUP,), label, device=device)
        rows = KnownLatents(
            known.latents.expand(GROUP, *known.latents.shape[1:]),
            known.mask.expand(GROUP, *known.mask.shape[1:]),
        )
        return self.prior.complete(labels, uniforms, self.settings, rows)
