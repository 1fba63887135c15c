"""Watch the latents for collapse: dimensions that say nothing, codes that nobody uses.

A decoder that can explain the images by itself stops reading the latents, and the KL pulls them to
the prior (posterior collapse; Bowman et al. 2016, Lucas et al. 2019): a latent dimension is
collapsed when its KL over the validation split is below `dimension_below` nats. Of a codebook the
same is said by its dead codes: those that no cell of the validation split chooses.

At every validation the share of lost units is recorded. Above `warn_above` there is one warning,
above `alarm_above` one alarm that names the settings to change and tags the tracked run; with
`stop`, the alarm ends the stage. All that was seen is kept and drawn: for every validation the
histogram of the units' KL (or of the codes' frequencies), on a logarithmic scale.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart
from torch import Tensor

from stages.core.errors import CollapseError
from stages.core.ranks import is_first_process
from stages.tasks.collapse_options import CollapseOptions

__all__ = ["CollapseMonitor"]

REMEDIES = {
    "latent dimensions": (
        "lower objective.kl_weight, anneal it (objective.annealing), give objective.free_bits, or "
        "weaken the decoder (backbone.decoder_widths, likelihood.context)"
    ),
    "codes": (
        "start from data (bottleneck.kmeans_iterations above 0), revive (bottleneck.revive_below "
        "above 0), raise bottleneck.batch_entropy_weight (lookup_free), or use fewer codes of "
        "fewer numbers"
    ),
}
# Decades shown: a unit below the first is as lost as one at it.
_LOWEST, _HIGHEST, _BINS = -4.0, 3.0, 70


class CollapseMonitor:
    """Keeps what every validation saw of the units, and speaks up.

    Args:
        options: Thresholds.
        tag: Called with name and value of a tag for the tracked run.
    """

    def __init__(self, options: CollapseOptions, tag: Callable[[str, str], None]) -> None:
        self.options = options
        self._tag = tag
        self._steps: list[int] = []
        self._seen: list[Tensor] = []
        self._level = 0

    def observe_kl(self, step: int, kl: Tensor) -> dict[str, float]:
        """Look at the KL of each latent dimension.

        Args:
            step: Of the training.
            kl: Mean over the validation split, (latent_dims,), nats.

        Returns:
            Figures for the curves.

        Raises:
            CollapseError: If the alarm is to stop the stage.
        """
        lost = int((kl < self.options.dimension_below).sum())
        self._keep(step, kl)
        self._judge(step, lost, len(kl), "latent dimensions", "collapsed")
        return {"collapsed_share": lost / len(kl)}

    def observe_codes(self, step: int, counts: Tensor) -> dict[str, float]:
        """Look at how often the validation split chose each code, (codebooks, num_codes).

        A split of fewer cells than codes cannot use them all: the share is of the codes it could.
        Of several codebooks the worst is judged: others must not hide it.

        Raises:
            CollapseError: If the alarm is to stop the stage.
        """
        codebooks, num_codes = counts.shape
        cells = counts.sum(dim=1, keepdim=True)
        possible = cells.squeeze(1).clamp(max=num_codes)
        lost = possible - (counts > 0).sum(dim=1)
        worst = int((lost / possible).argmax())
        self._keep(step, (counts / cells * num_codes).flatten())
        where = f" in codebook {worst + 1} of {codebooks}" if codebooks > 1 else ""
        self._judge(step, int(lost[worst]), int(possible[worst]), "codes", f"dead{where}")
        return {"dead_code_share": int(lost[worst]) / int(possible[worst])}

    def _keep(self, step: int, values: Tensor) -> None:
        self._steps.append(step)
        self._seen.append(values.float().cpu())

    def _judge(self, step: int, lost: int, of: int, units: str, how: str) -> None:
        if step < self.options.after_steps:
            return
        limits = (self.options.warn_above, self.options.alarm_above)
        level = sum(lost / of > limit for limit in limits)
        if level > self._level:
            self._speak(level, f"{lost} of {of} {units} are {how}", step, units)
        self._level = level

    def _speak(self, level: int, what: str, step: int, units: str) -> None:
        word = ("warning", "alarm")[level - 1]
        limit = (self.options.warn_above, self.options.alarm_above)[level - 1]
        message = f"collapse {word} at step {step}: {what}, above {limit:.0%}; {REMEDIES[units]}"
        self._tag("collapse", f"{word}: {what} at step {step}")
        if level == 2 and self.options.stop:
            raise CollapseError(f"{message}. The stage stops because collapse.stop is true")
        if is_first_process():
            print(message, file=sys.stderr)

    def state(self) -> dict[str, Tensor]:
        """All validations so far."""
        seen = torch.stack(self._seen) if self._seen else torch.zeros(0, 0)
        return {
            "collapse_steps": torch.tensor(self._steps, dtype=torch.int64),
            "collapse_seen": seen,
            "collapse_level": torch.tensor(self._level),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on after them."""
        self._steps = state["collapse_steps"].tolist()
        self._seen = list(state["collapse_seen"])
        self._level = int(state["collapse_level"])

    def draw(self, path: Path, kind: str) -> None:
        """Draw the histograms over time.

        Args:
            path: The PNG.
            kind: `codes` or `continuous`: what the units are.
        """
        chart = Chart(figsize=(6.4, 3.6), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(chart)
        axes = chart.add_subplot()
        axes.set_yscale("log")
        axes.set_ylim(10**_LOWEST, 10**_HIGHEST)
        edges = np.linspace(_LOWEST, _HIGHEST, _BINS + 1)
        columns = [_histogram(values.numpy(), edges) for values in self._seen]
        if columns:
            # Columns stand side by side in the order of the validations, evenly spaced.
            shares = np.ma.masked_equal(np.array(columns).T, 0)
            places = np.arange(len(columns) + 1) - 0.5
            mesh = axes.pcolormesh(places, 10**edges, shares, cmap="viridis_r", vmin=0)
            chart.colorbar(mesh, ax=axes, label="share of units")
            chosen = np.unique(np.linspace(0, len(columns) - 1, min(6, len(columns))).astype(int))
            axes.set_xticks(chosen, [str(self._steps[index]) for index in chosen])
        axes.set_xlabel("step")
        if kind == "codes":
            axes.set_ylabel("use of a code, 1 = uniform")
            axes.set_title("How often codes are used on the validation split")
        else:
            axes.axhline(self.options.dimension_below, color="black", linewidth=0.8, linestyle="--")
            axes.set_ylabel("KL of a latent dimension, nats")
            axes.set_title("KL per latent dimension; dashed: collapsed below")
        # matplotlib would write its version into the file.
        canvas.print_png(path, metadata={"Software": None})


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the units in each decade bin; those beyond the ends are counted in the end bins."""
    floor = 10.0 ** edges[0]
    logs = np.log10(np.clip(values, floor, 10.0 ** edges[-1]))
    return np.histogram(logs, edges)[0] / max(len(values), 1)
