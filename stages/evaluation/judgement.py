"""The judgement of a line: every figure with its protocol, and what the pictures need.

First all that could be missing is opened. Then the test split passes once by the first stage, and
its reconstructions go to the disk; every network looks at the four sets of images, and what it sees
goes to the disk too (stages/evaluation/feature_store.py); then the sets are compared. No more than
a batch of images is held as floats, and a run that was killed goes on where it was.
Which metrics there are is decided here, one line each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stages.core.stage import Run
from stages.evaluation.class_shares import ClassShares, class_shares
from stages.evaluation.coded import code_test
from stages.evaluation.comparison import Comparison
from stages.evaluation.factors import TITLE as FACTORS
from stages.evaluation.factors import FactorJudgement, judge_factors
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.line import Line
from stages.evaluation.line_sets import known_sets, writing_reconstructions
from stages.evaluation.looking import look_at
from stages.evaluation.nearest import CHOSEN, Nearest, nearest_training_images
from stages.evaluation.networks import open_networks
from stages.evaluation.observe import evenly_spaced, observe_test
from stages.evaluation.options import EvaluateOptions
from stages.evaluation.protocols import in_features, protocols_of_sets, told_to_prior
from stages.evaluation.weighing import weigh_test
from stages.metrics.base import Figure, Metric
from stages.metrics.codes import CodeUsage
from stages.metrics.latents import LatentActivity
from stages.metrics.likelihood import TwoStageLikelihood
from stages.metrics.memorisation import Memorisation
from stages.metrics.perceptual import PerceptualSimilarity
from stages.metrics.reconstruction import Reconstruction
from stages.nn.lpips import open_lpips

__all__ = ["Judgement", "judge_line"]


@dataclass(frozen=True)
class Judgement:
    """Everything that was found."""

    groups: dict[str, list[Figure]]
    """Figures under the headings of the report."""
    profile: pd.DataFrame
    """Columns `unit` and `value`: KL in nats of each latent dimension (variance of the means
    where there is no posterior), or share of each code, in descending order."""
    profile_title: str
    per_class: pd.DataFrame | None
    """One row per class: accuracies and distances; None without classes."""
    per_factor: pd.DataFrame | None
    """One row per known factor of the images; None where none are known or looked at."""
    queried_samples: np.ndarray
    """Places of the samples whose nearest training images were sought; (samples,)."""
    sample_distances: np.ndarray
    """Distances of the queried samples to their nearest training images, in units of the median
    of test images; (samples, neighbours)."""
    sample_neighbours: np.ndarray
    """The rows of these images in the training split."""
    test_distances: np.ndarray
    """Distances of test images to their nearest training image, in the same units; (test,)."""
    usual_distance: float
    """That unit: the median distance of test images, in features."""
    memorisation: Memorisation
    """What these distances say."""
    class_shares: ClassShares | None
    """Of samples and test images; None without classes."""

    @property
    def figures(self) -> dict[str, Figure]:
        """All figures by name."""
        return {figure.name: figure for group in self.groups.values() for figure in group}


def judge_line(
    line: Line, options: EvaluateOptions, seed: int, run: Run, device: torch.device
) -> Judgement:
    """Look at test split, samples and training split.

    Args:
        line: What is judged.
        options: How much of it is looked at.
        seed: Of the posterior draws, and of which images are asked for their neighbours.
        run: Its stop event is obeyed between pieces, its work folder used.
        device: Where the line computes.

    Raises:
        Interrupted: If the stage was asked to stop.
        ParamsError: If weights that the options name cannot be read.
    """
    metrics = metrics_of(line, options, device)
    networks = open_networks(line.judge, options.networks, line.first_stage.image, device)
    sets = known_sets(line, options.max_images)
    sets["reconstructions"] = _look(line, sets["test"], metrics, options, seed, run, device)
    protocols = protocols_of_sets(line, sets, seed)
    of_test = protocols["test"]
    of_prior = told_to_prior(line, of_test)
    groups = {
        metric.title: metric.figures(
            of_prior if isinstance(metric, TwoStageLikelihood) else of_test
        )
        for metric in metrics
    }
    groups[TwoStageLikelihood.title] += weigh_test(line, options, seed, run, device, of_prior)
    groups[TwoStageLikelihood.title] += code_test(line, options, seed, run, device)
    test, latents = line.prepared.split("test"), line.latents.split("test")
    factors = judge_factors(test, latents, options.factor_images, seed, of_test)
    if factors is not None:
        groups[FACTORS] = factors.figures
    seen = look_at(sets, networks, run, device)
    comparisons = [
        Comparison(
            network=network,
            sets=features,
            protocols=in_features(network, line.first_stage.image, protocols),
            class_names=line.prepared.class_names or [],
            options=options.distances,
            seed=seed,
            suffix="" if network is networks[0] else f"_{network.name}",
        )
        for network, features in zip(networks, seen, strict=True)
    ]
    for comparison in comparisons:
        groups[comparison.title] = comparison.figures(run.raise_if_stopped)
    own = comparisons[0]
    nearest = nearest_training_images(
        own.sets, sets["train"].rows, options.neighbour_queries, seed, run.raise_if_stopped
    )
    of_samples = own.protocols["samples"].also(queries=CHOSEN, seed=seed)
    groups[own.title] += nearest.memorisation.figures(of_samples)
    shares = class_shares(sets["samples"], sets["test"], line.prepared.class_names)
    return _judgement(groups, metrics, comparisons, nearest, factors, shares)


def _look(
    line: Line,
    test: ImageSet,
    metrics: list[Metric],
    options: EvaluateOptions,
    seed: int,
    run: Run,
    device: torch.device,
) -> ImageSet:
    """Show the test split to the metrics by way of the first stage; its reconstructions."""
    rows = evenly_spaced(len(line.latents.split("test")), options.max_images)
    with writing_reconstructions(run.work, test) as rebuilt:
        for seen, _ in observe_test(line, rows, options.batch_size, seed, device):
            for metric in metrics:
                metric.update(seen)
            rebuilt.add(seen.reconstructions)
            run.raise_if_stopped()
    return rebuilt.images


def metrics_of(line: Line, options: EvaluateOptions, device: torch.device) -> list[Metric]:
    """The figures taken over the test split.

    Raises:
        ParamsError: If weights that the options name cannot be read.
    """
    spec, image = line.latents.spec, line.first_stage.image
    codebook_parts = line.first_stage.autoencoder.codebook_parts
    likelihood = line.first_stage.params.likelihood
    metrics: list[Metric] = [
        Reconstruction(),
        CodeUsage(spec.num_codes, codebook_parts) if spec.kind == "codes" else LatentActivity(spec),
        TwoStageLikelihood(spec, image, likelihood.discretized, likelihood.draws_targets),
    ]
    if options.lpips_weights:
        network = open_lpips(Path(options.lpips_weights), image, field="evaluate.lpips_weights")
        metrics.append(PerceptualSimilarity(network.to(device)))
    return metrics


def _judgement(
    groups: dict[str, list[Figure]],
    metrics: list[Metric],
    comparisons: list[Comparison],
    nearest: Nearest,
    factors: FactorJudgement | None,
    shares: ClassShares | None,
) -> Judgement:
    title, profile = _profile(metrics)
    return Judgement(
        groups=groups,
        profile=profile,
        profile_title=title,
        per_class=_per_class(comparisons),
        per_factor=None if factors is None else factors.table,
        queried_samples=nearest.samples,
        sample_distances=(nearest.sample_distances / nearest.usual).numpy(),
        sample_neighbours=nearest.sample_rows.numpy(),
        test_distances=(nearest.test_distances[:, 0] / nearest.usual).numpy(),
        usual_distance=nearest.usual,
        memorisation=nearest.memorisation,
        class_shares=shares,
    )


def _per_class(comparisons: list[Comparison]) -> pd.DataFrame | None:
    """One row per class, the columns of the networks side by side; None without classes."""
    first, *others = [comparison.per_class() for comparison in comparisons]
    if first is None:
        return None
    for other in others:
        assert other is not None, "classes are those of the data"
        first = first.merge(other, on=["label", "name"])
    return first


def _profile(metrics: list[Metric]) -> tuple[str, pd.DataFrame]:
    """What each code or latent dimension carries, in descending order."""
    for metric in metrics:
        if isinstance(metric, CodeUsage):
            title, values = "Share of each code", metric.counts / metric.counts.sum()
        elif isinstance(metric, LatentActivity) and metric.spec.deterministic:
            title, values = "Variance of each latent dimension", metric.variance_of_means
        elif isinstance(metric, LatentActivity):
            title, values = "KL of each latent dimension in nats", metric.kl_per_dimension
    ordered, units = values.flatten().double().sort(descending=True, stable=True)
    return title, pd.DataFrame({"unit": units.numpy(), "value": ordered.numpy()})
