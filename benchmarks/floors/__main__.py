"""Frechet distances of training from test images in published networks.

    python -m benchmarks.floors data/prepared resnet56_cifar10=FILE mobilenet_v2=FILE

The images are those of a line, as `prepare` left them. 60,000 at 224x224 take long on one core, so
features go through the store of `evaluate`: what a line's evaluation has looked at is not looked at
again, and a run that is killed goes on. Writes benchmarks/results/floors/DATA/NETWORK.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.floors.distance import frechet_from_test
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS
from stages.core.artifacts import write_json
from stages.core.sections import load_member
from stages.core.stage import work_root
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.observe import evenly_spaced
from stages.extractors.base import Extractor, ExtractorOptions
from stages.metrics.feature_set import FeatureSet
from stages.stores.prepared import Prepared, open_prepared

__all__ = ["main"]

CPU = torch.device("cpu")


def main(arguments: list[str] | None = None) -> None:
    """Measure every network named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument("prepared", type=Path, help="folder of prepared images")
    parser.add_argument("networks", nargs="+", help="KIND=FILE")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, default=RESULTS / "floors")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prepared = open_prepared(options.prepared)
    train, test = (_whole(prepared, name) for name in ("train", "test"))
    store = FeatureStore(work_root() / "features", CPU, lambda: None)
    folder = options.output / prepared.artifact.about["options"]["kind"]
    folder.mkdir(parents=True, exist_ok=True)
    run = describe_run("python -m benchmarks.floors", {"seed": options.seed}, packages=())
    for kind, weights in (named.split("=", 1) for named in options.networks):
        wanted = ExtractorOptions.of_kind(kind)(kind=kind, weights=weights)
        network = load_member(Extractor, kind).open(wanted, prepared.image_shape, CPU)
        reference = store.features(network, test)
        found = [
            frechet_from_test(
                network,
                images,
                reference,
                test,
                options.seed,
                shows="train split",
                rounding="8-bit images as published",
                label_balance="equal",
            ).to_json()
            for images in _sizes(store.features(network, train))
        ]
        write_json(folder / f"{kind}.json", {"floors": found, "run": run})
        print(json.dumps(found, indent=2))


def _whole(prepared: Prepared, name: str) -> ImageSet:
    split = prepared.split(name)
    return ImageSet(name, split.images, np.arange(len(split)), split.labels, f"{name} split")


def _sizes(train: FeatureSet) -> list[FeatureSet]:
    """All training images, and as many of them as there are usually samples."""
    sizes = [size for size in (10_000, 1_000) if size < len(train)]
    return [train, *(train.rows(evenly_spaced(len(train), size)) for size in sizes)]


if __name__ == "__main__":
    main()
