"""The first stage as a task of the training loop.

Beside the loss it keeps the two warning lights of a first stage from the first step on: for codes,
usage and perplexity counted over whole epochs and over the whole validation split (of a batch
they would say more about the batch size); for continuous latents, KL per channel and how many
channels carry nothing.
"""

import numpy as np
import torch
from torch import Tensor, nn

from stages.autoencoders.base import Autoencoder
from stages.core.intensities import from_pixels
from stages.core.randomness import torch_stream
from stages.core.shapes import Images
from stages.nn.codebook import code_counts, code_usage, perplexity
from stages.nn.distributions import DiagonalGaussian
from stages.stores.prepared import PreparedSplit
from stages.training.task import Task, Validation

__all__ = ["AutoencoderTask", "code_figures"]

# Features of this many images start a codebook: enough vectors for k-means, little memory.
START_IMAGES = 1024
VALIDATION_BATCH = 256
# A latent channel below this many nats (summed over the grid) carries nothing the decoder uses.
COLLAPSED_BELOW_NATS = 0.1


class AutoencoderTask(Task):
    """Minimise (-log p(x given z) + rate) / D plus the bottleneck's own terms."""

    def __init__(
        self, autoencoder: Autoencoder, train: PreparedSplit, validation: PreparedSplit, seed: int
    ) -> None:
        """Join a model with its data.

        Args:
            autoencoder: What is trained.
            train: Training split.
            validation: Split that judges it.
            seed: Root of the random streams of validation and of the codebook's start.
        """
        self.module = autoencoder
        self.train, self.validation, self.seed = train, validation, seed
        self.num_examples = len(train.images)
        self.code_counts = torch.zeros(autoencoder.spec.num_codes, dtype=torch.int64)
        self.images_counted = 0

    def batch(self, rows: np.ndarray, device: torch.device) -> Images:
        """Images of these rows, in [-1, 1]."""
        return _read(self.train.images, rows, device)

    def start(self, device: torch.device, generator: torch.Generator) -> None:
        """Start the bottleneck from the features of some training images."""
        count = min(START_IMAGES, self.num_examples)
        rows = np.linspace(0, self.num_examples - 1, count).astype(np.int64)
        with torch.no_grad():
            features = self.module.backbone.encoder(_read(self.train.images, rows, device))
        self.module.bottleneck.start_from_data(features, generator)

    def loss(
        self, module: nn.Module, batch: Images, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss in nats per dimension, and its parts in nats per image."""
        result = module(batch, generator)
        bottlenecked = result.bottlenecked
        if bottlenecked.codes is not None:
            self.code_counts += code_counts(bottlenecked.codes, len(self.code_counts)).cpu()
            self.images_counted += len(batch)
        figures = {
            "distortion_nats": result.distortion.mean(),
            "auxiliary": bottlenecked.auxiliary,
            "mse": (result.reconstructions.detach().clamp(-1, 1) - batch).square().mean() / 4,
            **bottlenecked.statistics,
        }
        if bottlenecked.posterior is not None and not module.spec.deterministic:
            kl = _kl_per_channel(bottlenecked.posterior).detach().mean(dim=0)
            figures |= {channel_name(index): value for index, value in enumerate(kl)}
        return result.loss, figures

    def after_step(self, generator: torch.Generator) -> dict[str, float]:
        """Let the bottleneck mend itself; report code usage at the end of an epoch."""
        self.module.bottleneck.after_step(generator)
        if len(self.code_counts) == 0 or self.images_counted < self.num_examples:
            return {}
        figures = {f"epoch_{k}": v for k, v in code_figures(self.code_counts).items()}
        self.code_counts.zero_()
        self.images_counted = 0
        return figures

    def validate(self, module: nn.Module, device: torch.device) -> Validation:
        """Loss, reconstruction error, and the latents' state over the validation split."""
        count = len(self.validation.images)
        sums: dict[str, float] = {}
        counts = torch.zeros_like(self.code_counts)
        kl_per_channel: list[Tensor] = []
        for start in range(0, count, VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, count))
            images = _read(self.validation.images, rows, device)
            stream = torch_stream(self.seed, "validation", start, device=device)
            result = module(images, stream)
            mse = (result.reconstructions.clamp(-1, 1) - images).square().mean() / 4
            parts = {
                "loss": result.loss,
                "distortion_nats": result.distortion.mean(),
                "mse": mse,
            }
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows) / count
            if result.bottlenecked.codes is not None:
                counts += code_counts(result.bottlenecked.codes, len(counts)).cpu()
            posterior = result.bottlenecked.posterior
            if posterior is not None and not module.spec.deterministic:
                kl_per_channel.append(_kl_per_channel(posterior).cpu())
        figures = sums | code_figures(counts) | kl_figures(kl_per_channel)
        figures["psnr_db"] = -10 * float(np.log10(max(sums["mse"], 1e-12)))
        return Validation(sums["loss"], figures)

    def state(self) -> dict[str, Tensor]:
        """The code counts of the running epoch."""
        return {"counts": self.code_counts, "images": torch.tensor(self.images_counted)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on counting."""
        self.code_counts = state["counts"].clone()
        self.images_counted = int(state["images"])


def _read(images: np.ndarray, rows: np.ndarray, device: torch.device) -> Images:
    return from_pixels(torch.from_numpy(np.ascontiguousarray(images[rows])).to(device))


def code_figures(counts: Tensor) -> dict[str, float]:
    """Usage (share of codes seen) and perplexity of a histogram of codes; nothing for no codes."""
    if counts.sum() == 0:
        return {}
    return {
        "code_usage": code_usage(counts).item(),
        "code_perplexity": perplexity(counts).item(),
    }


def _kl_per_channel(posterior: DiagonalGaussian) -> Tensor:
    """KL from N(0, I) of each image's channels, summed over the grid: (batch, channels), nats."""
    return posterior.kl_per_number().sum(dim=(2, 3))


def channel_name(index: int) -> str:
    """Name of the curve of one latent channel's KL."""
    return f"kl_nats_channel_{index:03d}"


def kl_figures(batches: list[Tensor]) -> dict[str, float]:
    """KL per channel in nats, their sum, and the share of channels that carry nothing."""
    if not batches:
        return {}
    kl = torch.cat(batches).double().mean(dim=0)
    figures = {channel_name(index): value.item() for index, value in enumerate(kl)}
    collapsed = (kl < COLLAPSED_BELOW_NATS).double().mean().item()
    return figures | {"kl_nats": kl.sum().item(), "collapsed_channels": collapsed}
