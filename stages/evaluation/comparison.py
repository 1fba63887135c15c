"""Samples, reconstructions, test and training images compared in the features of the judge.

    frechet_JUDGE                    samples against test
    reconstruction_frechet_JUDGE     reconstructions against test: what the first stage costs alone
    frechet_JUDGE_floor              train against test: what is left for real images

Reconstructions are of the very images they are compared with, so theirs can lie below the floor.
Where the judge knows classes, there is its accuracy on samples, reconstructions and test images.
JUDGE is `classifier` or `rotation`, after what it was taught.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from stages.assembly.judge import Judge
from stages.core.shapes import Labels, Pixels
from stages.metrics.base import Figure, Protocol
from stages.metrics.class_accuracy import ClassAccuracy
from stages.metrics.frechet import FeatureMoments, frechet_figure
from stages.metrics.memorisation import Memorisation, judge_distances
from stages.metrics.neighbours import NearestNeighbours

__all__ = ["NEIGHBOURS", "Comparison"]

NEIGHBOURS = 3
"""Training images kept per query."""


class Comparison:
    """Takes in the sets one after the other: test, samples, then train.

    Attributes:
        neighbours: Nearest training images of the first samples, then of the first test images.
        num_queries: How many of these are samples.
    """

    neighbours: NearestNeighbours
    num_queries: int

    def __init__(self, judge: Judge, device: torch.device, neighbour_queries: int) -> None:
        self.judge, self.device, self.limit = judge, device, neighbour_queries
        dim = judge.network.feature_dim
        self.moments = {
            name: FeatureMoments(dim) for name in ("test", "reconstructions", "samples", "train")
        }
        classes = judge.config.num_classes
        self.accuracy = {
            name: ClassAccuracy(classes) for name in ("test", "reconstructions", "samples")
        }
        self._queries: dict[str, list[Tensor]] = {"samples": [], "test": []}

    def see(self, name: str, pixels: Pixels, labels: Labels | None) -> None:
        """Take in a batch of the set `name`: test, reconstructions or samples."""
        features = self._features(pixels)
        self.moments[name].update(features)
        if labels is not None and self.judge.config.taught == "classes":
            self.accuracy[name].update(self.judge.decide(features).cpu(), labels)
        if name in self._queries:
            held = sum(len(vectors) for vectors in self._queries[name])
            self._queries[name].append(features[: max(self.limit - held, 0)])

    def see_train(self, pixels: Pixels, rows: np.ndarray) -> None:
        """Take in a batch of training images, after all test images and samples."""
        if not hasattr(self, "neighbours"):
            samples, test = (torch.cat(self._queries[name]) for name in ("samples", "test"))
            self.num_queries = len(samples)
            self.neighbours = NearestNeighbours(torch.cat([samples, test]), NEIGHBOURS)
        features = self._features(pixels)
        self.moments["train"].update(features)
        self.neighbours.update(features, torch.from_numpy(rows).to(features.device))

    def _features(self, pixels: Pixels) -> Float[Tensor, "batch feature_dim"]:
        return self.judge.features(pixels.to(self.device))

    @property
    def sample_distances(self) -> Float[Tensor, "samples neighbours"]:
        """Of the queried samples to their nearest training images, ascending."""
        return self.neighbours.distances[: self.num_queries].cpu()

    @property
    def test_distances(self) -> Float[Tensor, "test neighbours"]:
        """Of the queried test images to their nearest training images, ascending."""
        return self.neighbours.distances[self.num_queries :].cpu()

    @property
    def memorisation(self) -> Memorisation:
        """Whether samples come nearer to training images than test images do."""
        return judge_distances(self.sample_distances[:, 0], self.test_distances[:, 0])

    def figures(self, of_test: Protocol, of_samples: Protocol, of_train: Protocol) -> list[Figure]:
        """All comparisons.

        Args:
            of_test: Protocol of figures about test images and their reconstructions.
            of_samples: Of those about samples, with the settings of the sampler.
            of_train: Of those about training images.
        """
        name, moments = f"frechet_{self.judge.name}", self.moments
        test = moments["test"]
        result = [
            frechet_figure(name, moments["samples"], test, of_samples),
            frechet_figure(
                f"reconstruction_{name}",
                moments["reconstructions"],
                test,
                of_test.also(images="reconstructions of the reference images themselves"),
            ),
            frechet_figure(f"{name}_floor", moments["train"], test, of_train),
            *self.memorisation.figures(of_samples),
        ]
        return [*result, *self._accuracies(of_test, of_samples)]

    def _accuracies(self, of_test: Protocol, of_samples: Protocol) -> list[Figure]:
        wanted = {
            "class_accuracy": ("samples", of_samples),
            "reconstruction_class_accuracy": ("reconstructions", of_test),
            "test_class_accuracy": ("test", of_test),
        }
        return [
            self.accuracy[of].figure(name, protocol)
            for name, (of, protocol) in wanted.items()
            if self.accuracy[of].asked.sum() > 0
        ]

    def per_class(self, names: list[str]) -> pd.DataFrame:
        """One row per class; empty cells where nothing was asked for."""
        columns = {
            f"{of}_{what}": values
            for of, accuracy in self.accuracy.items()
            for what, values in (("images", accuracy.asked), ("accuracy", accuracy.per_class))
        }
        return pd.DataFrame({"label": np.arange(len(names)), "name": names, **columns})
