"""Pairs of stages of pythae, trained for a given time: VQ-VAE with PixelCNN, VAE with a mixture.

Networks, losses and samplers are theirs, as their own benchmark has them; the optimiser is the one
of their trainer (Adam, constant rate) at the rate of their VQ-VAE examples. Their trainer counts
epochs, not seconds, so the loop around it is written here.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

__all__ = ["PEERS", "Made", "Task"]

BATCH, LEARNING_RATE = 100, 1e-3
NUM_CODES, CODE_DIM, LATENT_DIM, COMPONENTS = 512, 16, 16, 10
SPARE_SHARE = 0.1
"""Share of a VAE's time kept for fitting the mixture; what is left over is not given back."""


@dataclass(frozen=True)
class Made:
    """What a pair of stages made."""

    name: str
    reconstructions: UInt8[np.ndarray, "images channels height width"]
    samples: UInt8[np.ndarray, "samples channels height width"]
    labels: np.ndarray | None
    """Classes the samples were asked to show, int64 (samples,); None where none can be asked."""
    seconds: dict[str, float]
    """Of each training: peers' processor seconds, and ours by the wall."""
    usage: float | None
    """Share of the codes that the test images use; None without codes."""


@dataclass(frozen=True)
class Task:
    """What every pair is given."""

    train: UInt8[np.ndarray, "images channels height width"]
    test: UInt8[np.ndarray, "images channels height width"]
    first_seconds: float
    second_seconds: float
    samples: int
    seed: int


def vq_vae(task: Task) -> Made:
    """VQ-VAE with pythae's residual network, and its PixelCNN.

    The codebook learns by gradient: their sampler cannot look codes up among running means.
    """
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.samplers import PixelCNNSampler

    torch.manual_seed(task.seed)
    shape = task.train.shape[1:]
    encoder, decoder = _networks(shape[0], "VQVAE")
    config = VQVAEConfig(input_dim=shape, latent_dim=CODE_DIM, num_embeddings=NUM_CODES)
    model = VQVAE(config, encoder(config), decoder(config))
    first = _train(model, _batches(task.train, task.seed), task.first_seconds)
    model.eval()
    sampler = PixelCNNSampler(model)
    grid = sampler.pixelcnn_model.model_config.input_dim

    def codes(images: Float[Tensor, "batch channels height width"]) -> Tensor:
        with torch.no_grad():
            return model({"data": images}).quantized_indices.reshape(-1, *grid).float()

    second = _train(
        sampler.pixelcnn_model,
        (codes(batch) for batch in _batches(task.train, task.seed + 1)),
        task.second_seconds,
    )
    sampler.pixelcnn_model.eval()
    sampler.is_fitted = True
    used = torch.cat([codes(_unit(part)).flatten() for part in _parts(task.test)]).unique()
    return Made(
        "pythae VQ-VAE + PixelCNN",
        _each(task.test, lambda images: model({"data": images}).recon_x),
        _drawn(sampler.sample, task.samples),
        None,
        {"first": first, "second": second},
        len(used) / NUM_CODES,
    )


def vae(task: Task) -> Made:
    """VAE with pythae's convolutional network, and its Gaussian mixture.

    A mixture is fitted in seconds, so the autoencoder gets nearly all of the time of both stages.
    """
    from pythae.models import VAE, VAEConfig
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    torch.manual_seed(task.seed)
    shape = task.train.shape[1:]
    encoder, decoder = _networks(shape[0], "VAE")
    config = VAEConfig(input_dim=shape, latent_dim=LATENT_DIM)
    model = VAE(config, encoder(config), decoder(config))
    total = task.first_seconds + task.second_seconds
    first = _train(model, _batches(task.train, task.seed), total * (1 - SPARE_SHARE))
    model.eval()
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=COMPONENTS))
    started = time.process_time()
    sampler.fit(torch.cat([_unit(part) for part in _parts(task.train)]))
    second = time.process_time() - started

    def rebuilt(images: Tensor) -> Tensor:
        return model.decoder(model.encoder(images).embedding)["reconstruction"]

    return Made(
        "pythae VAE + mixture",
        _each(task.test, rebuilt),
        _drawn(sampler.sample, task.samples),
        None,
        {"first": first, "second": second},
        None,
    )


PEERS: tuple[Callable[[Task], Made], ...] = (vq_vae, vae)
"""All pairs, in the order of the table."""


def _networks(channels: int, kind: str) -> tuple[type[nn.Module], type[nn.Module]]:
    """Encoder and decoder of pythae's own benchmark: by data set, VAEs without residuals."""
    from pythae.models.nn.benchmarks import cifar, mnist

    of, data = (mnist, "MNIST") if channels == 1 else (cifar, "CIFAR")
    if kind == "VQVAE":
        return (
            getattr(of, f"Encoder_ResNet_VQVAE_{data}"),
            getattr(of, f"Decoder_ResNet_VQVAE_{data}"),
        )
    return getattr(of, f"Encoder_Conv_VAE_{data}"), getattr(of, f"Decoder_Conv_AE_{data}")


def _train(model: nn.Module, batches: Iterator[Tensor], seconds: float) -> float:
    """Until the processor seconds are used up, making of batches included; returns them."""
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    model.train()
    started = time.process_time()
    while time.process_time() - started < seconds:
        loss = model({"data": next(batches)}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - started


def _batches(images: np.ndarray, seed: int) -> Iterator[Tensor]:
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield _unit(images[np.sort(order[start : start + BATCH])])


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def _unit(pixels: np.ndarray) -> Tensor:
    """In [0, 1], as pythae wants them."""
    return torch.from_numpy(np.array(pixels)).float() / 255


def _pixels(images: Tensor) -> np.ndarray:
    return (images * 255).round().clamp(0, 255).to(torch.uint8).numpy()


@torch.no_grad()
def _each(images: np.ndarray, model: Callable[[Tensor], Tensor]) -> np.ndarray:
    return np.concatenate([_pixels(model(_unit(part))) for part in _parts(images)])


@torch.no_grad()
def _drawn(sample: Callable[..., Tensor], count: int) -> np.ndarray:
    return _pixels(sample(num_samples=count, batch_size=BATCH))
