"""Draw how Frechet and kernel distances depend on the number of images; minutes."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.sample_size.draw import draw
from benchmarks.sample_size.features import random_features
from benchmarks.sample_size.measure import Curve, frechet_curve, kernel_curve
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS
from stages.core.randomness import derive_seed
from stages.files.idx_files import IdxSet
from stages.metrics.feature_set import FeatureSet

__all__ = ["main"]

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
DIMS = (32, 128)
FRECHET_SIZES = [100, 200, 500, 1000, 2000, 3000, 4000, 5000]
KERNEL_SIZES = [100, 200, 500, 1000, 2000, 5000]
BLUR = 1.0


def main(arguments: list[str] | None = None) -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sample_size", description=__doc__)
    parser.add_argument("root", type=Path, help="folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--orders", type=int, default=3, help="random orders of the images")
    parser.add_argument("--images", type=int, default=5000, help="of each set")
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of features and orders")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--output", type=Path, default=RESULTS / "sample_size")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = {"orders": options.orders, "dims": list(options.dims), "seed": options.seed}
    run = describe_run("python -m benchmarks.sample_size", settings, packages=())
    found = IdxSet("FashionMNIST", options.root, download=False)
    train, test = (_first(found, part, options.images) for part in ("train", "t10k"))
    kinds = {"training images": train, f"the same, blurred (sigma {BLUR:g})": _blurred(train)}
    frechet: dict[int, dict[str, Curve]] = {}
    kernel: dict[int, dict[str, Curve]] = {}
    for dim in options.dims:
        seed = derive_seed(options.seed, "features", dim)
        reference = _set(test, dim, seed)
        sets = {kind: _set(images, dim, seed) for kind, images in kinds.items()}
        settings = (options.orders, options.seed)
        frechet[dim] = {
            kind: frechet_curve(one, reference, _up_to(FRECHET_SIZES, one), *settings)
            for kind, one in sets.items()
        }
        kernel[dim] = {
            kind: kernel_curve(one, reference, _up_to(KERNEL_SIZES, one), *settings)
            for kind, one in sets.items()
        }
        print(f"{dim} dimensions done", flush=True)
    against = f"against {len(test):,} test images of Fashion-MNIST; random convolutions"
    options.pictures.mkdir(parents=True, exist_ok=True)
    draw(options.pictures / "frechet_over_n.png", frechet, f"Frechet distance {against}", "d²")
    draw(options.pictures / "kernel_over_n.png", kernel, f"Kernel distance {against}", "MMD²")
    about = {
        "reference": "Fashion-MNIST, test split, first images",
        "reference_n": len(test),
        "run": run,
    }
    _write(options.output, about, {"frechet": frechet, "kernel": kernel})


def _first(found: IdxSet, part: str, count: int) -> np.ndarray:
    images, _ = next(found.blocks(part, count))
    return images


def _blurred(images: np.ndarray) -> np.ndarray:
    return np.rint(gaussian_filter(images.astype(np.float32), (0, 0, BLUR, BLUR))).astype(np.uint8)


def _set(images: np.ndarray, dim: int, seed: int) -> FeatureSet:
    return FeatureSet(random_features(images, dim, seed), None, None)


def _up_to(sizes: list[int], images: FeatureSet) -> list[int]:
    return [size for size in sizes if size <= len(images)]


def _write(
    folder: Path, about: dict[str, object], found: dict[str, dict[int, dict[str, Curve]]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        name: {
            str(dim): {kind: _plain(curve) for kind, curve in kinds.items()}
            for dim, kinds in dims.items()
        }
        for name, dims in found.items()
    }
    text = json.dumps({**about, **values}, indent=1)
    (folder / "curves.json").write_text(text + "\n", encoding="utf-8")


def _plain(curve: Curve) -> dict[str, object]:
    return {
        name: value.round(9).tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(curve).items()
    }


if __name__ == "__main__":
    main()
