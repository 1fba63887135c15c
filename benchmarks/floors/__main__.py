"""Frechet distances of training from test images of CIFAR-10 in published networks.

    python -m benchmarks.floors ../shared/data/cifar10 resnet56_cifar10=FILE mobilenet_v2=FILE

Long for 60,000 images at 224x224 on one core, so features go through the store of `evaluate`: a run
that is killed goes on, and a second one reads them. Writes benchmarks/results/floors/KIND.json.
"""

import argparse
import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import torch

from stages.core.artifacts import write_json
from stages.core.provenance import git_tags
from stages.core.sections import load_member
from stages.core.shapes import ImageShape
from stages.core.stage import work_root
from stages.datasets.cifar10 import Cifar10, Cifar10Options
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.observe import evenly_spaced
from stages.extractors.base import Extractor, ExtractorOptions
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import frechet_figures
from stages.metrics.pair import DistanceOptions, Pair
from stages.metrics.protocol import Protocol

__all__ = ["main"]

RESULTS = Path(__file__).parents[1] / "results" / "floors"
IMAGE = ImageShape(3, 32, 32)
CPU = torch.device("cpu")


def main(arguments: list[str] | None = None) -> None:
    """Measure every network named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument("root", help="folder with CIFAR-10's batches")
    parser.add_argument("networks", nargs="+", help="KIND=FILE")
    parser.add_argument("--train", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train, test = (_split(options.root, name) for name in ("train", "test"))
    rows = evenly_spaced(len(train), options.train)
    real = ImageSet("test", test, np.arange(len(test)), None, "test split")
    store = FeatureStore(work_root() / "features", CPU, lambda: None)
    options.output.mkdir(parents=True, exist_ok=True)
    for kind, weights in (named.split("=", 1) for named in options.networks):
        wanted = ExtractorOptions.of_kind(kind)(kind=kind, weights=weights)
        network = load_member(Extractor, kind).open(wanted, IMAGE, CPU)
        seen = store.features(network, ImageSet("train", train, rows, None, "training split"))
        reference = store.features(network, real)
        found = [
            _measured(network, images, reference, real.digest, options.seed)
            for images in _sizes(seen)
        ]
        write_json(options.output / f"{kind}.json", {"floors": found, **_circumstances()})
        print(json.dumps(found, indent=2))


def _split(root: str, name: str) -> np.ndarray:
    source = Cifar10(
        Cifar10Options(
            kind="cifar10",
            watch="data/README.md",
            root=root,
            download=False,
            validation_fraction=0.1,
            test_fraction=0.0,
        )
    )
    return np.concatenate([block.images for block in source.blocks([]) if block.split == name])


def _sizes(train: FeatureSet) -> list[FeatureSet]:
    """All training images, and as many of them as there are usually samples."""
    sizes = [size for size in (10_000, 1_000) if size < len(train)]
    return [train, *(train.rows(evenly_spaced(len(train), size)) for size in sizes)]


def _measured(
    network: Extractor, images: FeatureSet, reference: FeatureSet, digest: str, seed: int
) -> dict[str, object]:
    rule = network.rule(IMAGE)
    protocol = Protocol(
        images="training split",
        reference_split="test",
        reference_n=len(reference),
        reference_sha256=digest,
        resize=rule.resize,
        antialias=rule.antialias,
        rounding="8-bit images as published",
        label_balance="equal",
        extractor=network.title,
        extractor_sha256=network.checksum,
    )
    settings = DistanceOptions(
        resamples=1000,
        level=0.95,
        infinity_points=0,
        kernel_block=0,
        precision_neighbours=3,
        density_neighbours=5,
        score_splits=10,
    )
    [figure] = frechet_figures(Pair(images, reference, network.name, settings, seed, protocol))
    return figure.to_json()


def _circumstances() -> dict[str, str]:
    return {
        "date": date.today().isoformat(),
        "commit": git_tags().get("mlflow.source.git.commit", "unknown"),
        "torch": str(torch.__version__),
        "cores": str(os.cpu_count()),
    }


if __name__ == "__main__":
    main()
