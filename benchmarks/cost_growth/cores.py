"""The cores, stage by stage, with what they are expected to cost.

`scale` divides sizes for quick tests; exponents mean something at scale 1 only.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.autoencoder_step.contest import OURS_CONV
from benchmarks.autoencoder_step.contest import our_step as autoencoder_step
from benchmarks.cost_growth.growth import Core
from benchmarks.encoding.contest import encoding_run
from benchmarks.prior_step.contest import training_step
from benchmarks.quantizer.contest import GRID
from benchmarks.quantizer.contest import our_step as quantizer_step
from benchmarks.reading.contest import mapped_split
from benchmarks.sampling.contest import our_sampler
from benchmarks.side_by_side.prior_model import CODES, PriorSize, make_prior, matrix_weights
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import gaussian_distance
from stages.nn.stepping import StepSettings

__all__ = ["cores"]

Work = Callable[[], object]

CPU = torch.device("cpu")
_LAYERS = 4
_FEATURES = 64


def cores(seed: int, scale: int = 1) -> Iterator[Core]:
    """Every core, built when it is its turn."""
    yield _autoencoder_by_images(seed, scale)
    yield _quantizer_by_images(seed, scale)
    yield _quantizer_by_codes(seed, scale)
    yield from _encoding(seed, scale)
    yield from _reading(scale)
    yield _prior_by_tokens(seed, scale)
    yield _prior_by_parameters(seed)
    yield _sampling_by_tokens(seed, scale)
    yield _sampling_by_images(seed, scale)
    yield _distances(seed, scale)


def _sizes(*sizes: int, scale: int) -> list[int]:
    return sorted({max(1, size // scale) for size in sizes})


def _autoencoder_by_images(seed: int, scale: int) -> Core:
    def make(images: int) -> Work:
        return autoencoder_step(torch.rand(images, 3, 32, 32) * 2 - 1, seed, OURS_CONV)

    return Core(
        "train_autoencoder",
        "a step, conv + ema_vq",
        "images in a batch",
        _sizes(16, 32, 64, 128, scale=scale),
        make,
        lambda images: images,
        lambda images: images,
    )


def _vectors(images: int, dim: int) -> torch.Tensor:
    return torch.randn(images * GRID**2, dim)


def _quantizer_by_images(seed: int, scale: int) -> Core:
    dim, codes = 64, 512

    def make(images: int) -> Work:
        return quantizer_step(_vectors(images, dim), _vectors(images, dim), codes)

    return Core(
        "train_autoencoder",
        "ema_vq, 256 vectors of 64 an image, 512 codes",
        "images in a batch",
        _sizes(8, 16, 32, 64, 128, scale=scale),
        make,
        lambda images: images,
        lambda images: images,
    )


def _quantizer_by_codes(seed: int, scale: int) -> Core:
    dim, images = 8, 16

    def make(codes: int) -> Work:
        return quantizer_step(_vectors(images, dim), _vectors(images, dim), codes)

    vectors = images * GRID**2
    return Core(
        "train_autoencoder",
        f"ema_vq, {vectors} vectors of 8",
        "codes",
        [max(2, size) for size in _sizes(512, 2048, 8192, 32_768, 65_536, scale=scale)],
        make,
        lambda codes: codes * vectors * dim,
        # Vectors, their gradient and their choice; the codebook, its sums and its next state; and
        # distances, of 1 MB or twice the codebook.
        lambda codes: vectors * (3 * dim + 4) + 4 * codes * dim + max(1 << 18, 2 * codes * dim),
    )


def _encoding(seed: int, scale: int) -> Iterator[Core]:
    with tempfile.TemporaryDirectory() as folder:

        def make(images: int) -> Work:
            return encoding_run(Path(folder) / str(images), images, 256, seed)

        yield Core(
            "encode",
            "images to codes in Parquet",
            "images",
            [max(3, size) for size in _sizes(512, 1024, 2048, 4096, 8192, scale=scale)],
            make,
            lambda images: images,
            lambda images: 1.0,
        )


def _reading(scale: int) -> Iterator[Core]:
    with tempfile.TemporaryDirectory() as folder:

        def make(rows: int) -> Work:
            split = mapped_split(Path(folder) / str(rows), rows, 256)
            order = np.random.default_rng(0).integers(0, rows, (200, 256))

            def run() -> None:
                for some in order:
                    split.batch(some)

            return run

        yield Core(
            "train_prior",
            "reading 51,200 random rows of 256 codes",
            "rows of the data set",
            [max(2, size) for size in _sizes(16_384, 32_768, 65_536, 131_072, scale=scale)],
            make,
            lambda rows: 1.0,
            lambda rows: 1.0,
        )


def _tokens(scale: int) -> list[int]:
    return [max(2, size) for size in _sizes(64, 128, 256, 512, 1024, scale=scale)]


def _prior_by_tokens(seed: int, scale: int) -> Core:
    width, batch = 192, 2

    def make(tokens: int) -> Work:
        return _prior_step(PriorSize(_LAYERS, width, tokens), batch, seed)

    weights = _weights(_LAYERS, width)
    return Core(
        "train_prior",
        f"a step of batch {batch}, {_LAYERS} layers of {width}",
        "tokens",
        _tokens(scale),
        make,
        lambda tokens: tokens * (6 * weights + 6 * _LAYERS * width * tokens),
        lambda tokens: tokens,
    )


def _prior_by_parameters(seed: int) -> Core:
    tokens, batch = 64, 4

    def make(width: int) -> Work:
        return _prior_step(PriorSize(_LAYERS, width, tokens), batch, seed)

    return Core(
        "train_prior",
        f"a step of batch {batch}, {tokens} tokens, {_LAYERS} layers",
        "width (parameters grow with its square)",
        [96, 192, 384, 768],
        make,
        lambda width: 6 * _weights(_LAYERS, width) + 6 * _LAYERS * width * tokens,
        # Gradients are new in every step; activations of every token.
        lambda width: _weights(_LAYERS, width) + 34 * _LAYERS * batch * tokens * width,
    )


def _sampling_by_tokens(seed: int, scale: int) -> Core:
    width, batch = 192, 4
    weights = _weights(_LAYERS, width)

    def make(tokens: int) -> Work:
        return our_sampler(PriorSize(_LAYERS, width, tokens), batch, seed, StepSettings(), CPU)

    return Core(
        "sample",
        f"batch {batch}, {_LAYERS} layers of {width}, with a cache",
        "tokens",
        _tokens(scale),
        make,
        lambda tokens: tokens * (2 * weights + 2 * _LAYERS * width * tokens),
        lambda tokens: tokens,
    )


def _sampling_by_images(seed: int, scale: int) -> Core:
    size = PriorSize(_LAYERS, 192, max(2, 64 // scale))
    return Core(
        "sample",
        f"{size.tokens} tokens, {_LAYERS} layers of {size.width}",
        "images in a batch",
        _sizes(4, 8, 16, 32, 64, scale=scale),
        lambda images: our_sampler(size, images, seed, StepSettings(), CPU),
        lambda images: images,
        lambda images: images,
    )


def _distances(seed: int, scale: int) -> Core:
    numbers = np.random.default_rng(seed)

    def make(images: int) -> Work:
        samples, reference = numbers.normal(size=(2, images, _FEATURES)).astype(np.float32)

        def run() -> float:
            return gaussian_distance(
                FeatureSet(samples, None, None).gaussian, FeatureSet(reference, None, None).gaussian
            )

        return run

    return Core(
        "evaluate",
        f"Frechet distance of {_FEATURES} features",
        "images",
        [max(4, size) for size in _sizes(8192, 16_384, 32_768, 65_536, 131_072, scale=scale)],
        make,
        lambda images: images,
        lambda images: images,
    )


def _prior_step(size: PriorSize, batch: int, seed: int) -> Work:
    prior = make_prior(size, seed)
    codes = torch.randint(CODES, (batch, size.rows, size.columns))
    labels = torch.arange(batch) % prior.num_classes
    return training_step(prior, lambda: prior(codes, labels), CPU)


def _weights(layers: int, width: int) -> int:
    return sum(
        weight.numel() for weight in matrix_weights(make_prior(PriorSize(layers, width, 2), 0))
    )
