"""All pairs in the eyes of one judge: the classifier of the line, taught the training split."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.equal_time.peers import Made
from benchmarks.floors.distance import frechet_from_test
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.extractors.base import Extractor
from stages.metrics.class_accuracy import ClassAccuracy
from stages.metrics.feature_set import FeatureSet
from stages.metrics.figure import Figure
from stages.metrics.score import divergences

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """A row of the table."""

    name: str
    mse: float
    """Of reconstructions, pixels in [0, 1]."""
    rfrechet: float
    frechet: float
    interval: tuple[float, float] | None
    """Of `frechet`."""
    score: float
    """Inception-score form, in this judge."""
    confidence: float
    """Mean probability of the likeliest class: the same question of samples without a class."""
    accuracy: float | None
    """Of samples that were asked to show a class."""
    usage: float | None
    first_seconds: float
    second_seconds: float


def judge(
    made: Made, test: ImageSet, network: Extractor, store: FeatureStore, seed: int
) -> Verdict:
    """Figures of one pair of stages."""
    reference = store.features(network, test)

    def seen(name: str, images: np.ndarray) -> FeatureSet:
        rows = np.arange(len(images))
        return store.features(network, ImageSet(name, images, rows, None, name))

    def frechet(images: FeatureSet, shows: str) -> Figure:
        balance = "no classes" if made.labels is None else "equal"
        return frechet_from_test(
            network,
            images,
            reference,
            test,
            seed,
            shows=shows,
            rounding="to 8 bits",
            label_balance=balance,
        )

    samples = seen("samples", made.samples)
    assert samples.logits is not None, "the judge of data without classes knows none"
    distance = frechet(samples, "samples")
    logits = torch.from_numpy(np.array(samples.logits))
    shown = test.images.astype(np.int16) - made.reconstructions.astype(np.int16)
    return Verdict(
        name=made.name,
        mse=float(np.mean(np.square(shown, dtype=np.float64)) / 255**2),
        rfrechet=frechet(seen("reconstructions", made.reconstructions), "reconstructions").value,
        frechet=distance.value,
        interval=distance.interval,
        score=float(np.exp(divergences(samples.logits, samples.chunk).mean())),
        confidence=logits.softmax(dim=1).amax(dim=1).mean().item(),
        accuracy=None if made.labels is None else _accuracy(logits, made.labels),
        usage=made.usage,
        first_seconds=made.seconds["first"],
        second_seconds=made.seconds["second"],
    )


def _accuracy(logits: torch.Tensor, labels: np.ndarray) -> float:
    counted = ClassAccuracy(logits.shape[1])
    counted.update(logits, torch.tensor(labels))
    return counted.accuracy
