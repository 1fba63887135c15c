"""The handful of figures that open the report, chosen by rule and not by taste.

    reconstruction    LPIPS where it was taken, else PSNR; beside it SSIM and MSE
    likelihood        the tightest bound on bits per dim there is, else on nats, else the prior's
    samples           each Frechet distance, beside it that of reconstructions and its floor
    classes           share of samples that show their class, beside it the judge's own on test
    memorisation      share of samples nearer to training than the closest test images

The figure that stands first in each list and exists is the one; of bounds on one thing, the lowest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stages.metrics.figure import Figure

__all__ = ["Headline", "headlines"]

RECONSTRUCTION = ("lpips_squeeze", "psnr", "ssim", "mse")
LIKELIHOOD = (
    ("two_stage_iwae_bits_per_dim", "total_bits_per_dim", "iwae_bits_per_dim"),
    ("two_stage_iwae_nats", "iwae_nats"),
    ("prior_bits_per_code",),
    ("prior_nats",),
)
"""Bounds on the same thing stand together; of those that are there the lowest is the tightest."""
BASELINE = {
    "prior_bits_per_code": "prior_baseline_bits_per_code",
    "prior_nats": "prior_baseline_nats",
}


@dataclass(frozen=True)
class Headline:
    """One figure, and what it has to be read beside."""

    title: str
    figure: Figure
    beside: tuple[tuple[str, Figure], ...]


def headlines(figures: Mapping[str, Figure]) -> list[Headline]:
    """Those of the figures that open the report, in their order."""
    found = [
        *_first("Reconstruction", figures, RECONSTRUCTION, RECONSTRUCTION[1:]),
        *_likelihood(figures),
    ]
    for name in figures:
        if _is_distance_of_samples(name):
            beside = {
                "reconstructions": f"reconstruction_{name}",
                "floor (training images)": f"{name}_floor",
            }
            found.append(_headline("Samples against test images", figures, name, beside))
    if "class_accuracy" in figures:
        beside = {
            "reconstructions": "reconstruction_class_accuracy",
            "test images": "test_class_accuracy",
        }
        found.append(_headline("Samples that show their class", figures, "class_accuracy", beside))
    if "near_copy_share" in figures:
        beside = {"ratio of median distances": "neighbour_distance_ratio"}
        found.append(_headline("Copies of training images?", figures, "near_copy_share", beside))
    return found


def _is_distance_of_samples(name: str) -> bool:
    if name.endswith("_floor") or name.startswith("frechet_infinity_"):
        return False
    return name == "fid" or name.startswith("frechet_")


def _likelihood(figures: Mapping[str, Figure]) -> list[Headline]:
    bounds = ([name for name in names if name in figures] for names in LIKELIHOOD)
    there = next((names for names in bounds if names), [])
    if not there:
        return []
    name = min(there, key=lambda name: figures[name].value)
    baseline = BASELINE.get(name)
    beside = {} if baseline is None else {"when nothing is learned": baseline}
    return [_headline("Likelihood", figures, name, beside)]


def _first(
    title: str, figures: Mapping[str, Figure], wanted: tuple[str, ...], beside: tuple[str, ...]
) -> list[Headline]:
    name = next((name for name in wanted if name in figures), None)
    if name is None:
        return []
    return [_headline(title, figures, name, {other: other for other in beside if other != name})]


def _headline(
    title: str, figures: Mapping[str, Figure], name: str, beside: dict[str, str]
) -> Headline:
    near = tuple((label, figures[other]) for label, other in beside.items() if other in figures)
    return Headline(title, figures[name], near)
