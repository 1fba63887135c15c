"""The judgement of a line: every figure with its protocol, and what the pictures need.

Passes that hold no more than a batch of images as floats: the test split, the samples, the training
split, and the test split once more where it is weighed. Which metrics there are is decided here,
one line each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from stages.core.stage import Run
from stages.evaluation.comparison import Comparison
from stages.evaluation.factors import TITLE as FACTORS
from stages.evaluation.factors import judge_factors
from stages.evaluation.line import Line
from stages.evaluation.observe import chunks, evenly_spaced, observe_test
from stages.evaluation.options import EvaluateOptions
from stages.evaluation.protocols import (
    judged_by,
    protocol_of_samples,
    protocol_of_test,
    protocol_of_train,
    told_to_prior,
)
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
    """One row per class; None where the judge was not taught classes."""
    per_factor: pd.DataFrame | None
    """One row per known factor of the images; None where none are known or looked at."""
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
        seed: Of the posterior draws.
        run: Its stop event is obeyed between the passes.
        device: Where the line computes.

    Raises:
        Interrupted: If the stage was asked to stop.
    """
    metrics = metrics_of(line, options, device)
    comparison = Comparison(line.judge, device, options.neighbour_queries)
    rows = evenly_spaced(len(line.latents.split("test")), options.max_images)
    for seen, labels in observe_test(line, rows, options.batch_size, seed, device):
        for metric in metrics:
            metric.update(seen)
        comparison.see("test", seen.images, labels)
        comparison.see("reconstructions", seen.reconstructions, labels)
    run.raise_if_stopped()
    _see_samples(line, comparison, options)
    run.raise_if_stopped()
    _see_train(line, comparison, options)
    of_test = protocol_of_test(line, rows, seed)
    of_prior = told_to_prior(line, of_test)
    groups = {
        metric.title: metric.figures(
            of_prior if isinstance(metric, TwoStageLikelihood) else of_test
        )
        for metric in metrics
    }
    groups[TwoStageLikelihood.title] += weigh_test(line, options, seed, run, device, of_prior)
    factors = judge_factors(
        line.prepared.split("test"),
        line.latents.split("test"),
        options.factor_images,
        seed,
        of_test,
    )
    if factors is not None:
        groups[FACTORS] = factors.figures
    groups["Samples"] = comparison.figures(
        judged_by(line.judge, of_test),
        judged_by(line.judge, protocol_of_samples(line, len(rows))),
        judged_by(line.judge, protocol_of_train(line, len(rows), options)),
    )
    per_factor = None if factors is None else factors.table
    return _judgement(line, groups, metrics, comparison, per_factor)


def metrics_of(line: Line, options: EvaluateOptions, device: torch.device) -> list[Metric]:
    """The figures taken over the test split.

    Raises:
        ParamsError: If weights that the options name cannot be read.
    """
    spec, image = line.latents.spec, line.first_stage.image
    discretized = line.first_stage.params.likelihood.discretized
    metrics: list[Metric] = [
        Reconstruction(),
        CodeUsage(spec.num_codes) if spec.kind == "codes" else LatentActivity(spec),
        TwoStageLikelihood(spec, image, discretized),
    ]
    if options.lpips_weights:
        network = open_lpips(Path(options.lpips_weights), image, field="evaluate.lpips_weights")
        metrics.append(PerceptualSimilarity(network.to(device)))
    return metrics


def _see_samples(line: Line, comparison: Comparison, options: EvaluateOptions) -> None:
    samples = line.samples
    for rows in chunks(np.arange(len(samples.images)), options.batch_size, "samples"):
        labels = None if samples.labels is None else torch.from_numpy(samples.labels[rows])
        comparison.see("samples", torch.from_numpy(np.array(samples.images[rows])), labels)


def _see_train(line: Line, comparison: Comparison, options: EvaluateOptions) -> None:
    train = line.prepared.split("train").images
    every = evenly_spaced(len(train), options.max_images)
    for rows in chunks(every, options.batch_size, "training split"):
        comparison.see_train(torch.from_numpy(np.array(train[rows])), rows)


def _judgement(
    line: Line,
    groups: dict[str, list[Figure]],
    metrics: list[Metric],
    comparison: Comparison,
    per_factor: pd.DataFrame | None,
) -> Judgement:
    classes = line.judge.config.num_classes
    names = [line.class_name(label) for label in range(classes)]
    title, profile = _profile(metrics)
    usual = comparison.test_distances[:, 0].median().clamp_min(torch.finfo(torch.float32).eps)
    return Judgement(
        groups=groups,
        profile=profile,
        profile_title=title,
        per_class=comparison.per_class(names) if classes else None,
        per_factor=per_factor,
        sample_distances=(comparison.sample_distances / usual).numpy(),
        sample_neighbours=comparison.neighbours.rows[: comparison.num_queries].cpu().numpy(),
        test_distances=(comparison.test_distances[:, 0] / usual).numpy(),
        usual_distance=usual.item(),
        memorisation=comparison.memorisation,
    )


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
