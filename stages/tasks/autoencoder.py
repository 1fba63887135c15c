"""The first stage as a task of the training loop.

Beside the loss it keeps the two warning lights of a first stage from the first step on: for codes,
usage and perplexity counted over whole epochs and over the whole validation split (of a batch
they would say more about the batch size); for latents that are charged, KL per group of dimensions
and, at every validation, of each dimension.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stages.autoencoders.base import Autoencoder, Reconstructed
from stages.core.devices import sent_to
from stages.core.intensities import from_pixels
from stages.core.randomness import torch_stream
from stages.core.shapes import Codes, Images, Labels
from stages.nn.codebook import code_figures, counts_per_codebook, no_counts
from stages.nn.processes import StepSums
from stages.stores.prepared import PreparedSplit
from stages.tasks.appearance import Appearance
from stages.tasks.collapse import CollapseMonitor
from stages.training.task import Task, Validation

__all__ = ["AutoencoderTask", "ImageBatch", "read_images"]

# Features of this many images start a codebook: enough vectors for k-means, little memory.
START_IMAGES = 1024
VALIDATION_BATCH = 256


class ImageBatch(NamedTuple):
    """Images with their classes."""

    images: Images
    """In [-1, 1]."""
    labels: Labels | None
    """None where the autoencoder looks at no classes."""


class AutoencoderTask(Task):
    """Minimise (-log p(x given z) + cost of the KL) / D plus the bottlenecks' own terms."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        train: PreparedSplit,
        validation: PreparedSplit,
        monitor: CollapseMonitor,
        seed: int,
        appearance: Appearance | None = None,
    ) -> None:
        """Join a model with its data.

        Args:
            autoencoder: What is trained.
            train: Training split.
            validation: Split that judges it.
            monitor: Watches the latents at every validation.
            seed: Root of the random streams of validation and of the codebook's start.
            appearance: Terms of the loss that look at reconstructions; None: none.
        """
        self.module = autoencoder
        self.train, self.validation = train, validation
        self.monitor, self.seed = monitor, seed
        self.num_examples = len(train.images)
        self.code_counts = no_counts(autoencoder.spec.num_codes, autoencoder.codebook_parts)
        self.images_counted = 0
        self.step_codes = StepSums()
        self.appearance = appearance or Appearance()

    def batch(self, rows: np.ndarray, device: torch.device) -> ImageBatch:
        """Images of these rows, in [-1, 1], and classes where the autoencoder wants them."""
        return self._read(self.train, rows, device)

    def start(self, device: torch.device, generator: torch.Generator) -> None:
        """Start the bottleneck from some training images."""
        count = min(START_IMAGES, self.num_examples)
        rows = np.linspace(0, self.num_examples - 1, count).astype(np.int64)
        batch = self._read(self.train, rows, device)
        self.module.start_from_data(batch.images, batch.labels, generator)

    def loss(
        self, module: nn.Module, batch: ImageBatch, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss in nats per dimension, and its parts in nats per image."""
        images = batch.images
        done = torch.full((), float(step), device=images.device)
        result = module(images, batch.labels, generator, done)
        if result.codes is not None:
            counts = self._count(result.codes)
            self.step_codes.add(counts, torch.tensor(len(images)))
        added, looks = self.appearance.loss(images, result.reconstructions, result.distortion, step)
        figures = {
            **looks,
            "distortion_nats": result.distortion.mean(),
            "auxiliary": result.auxiliary,
            "mse": _mse(result, images),
            **result.statistics,
            **self._kl_figures(result.kl.detach().mean(dim=0)),
        }
        return result.loss + added, figures

    def after_step(self, generator: torch.Generator) -> dict[str, float]:
        """Let the bottleneck mend itself; report code usage at the end of an epoch."""
        self.module.after_step(generator)
        self.module.likelihood.after_step()
        taken = self.step_codes.take()
        if taken is None:
            return {}
        counts, images = taken
        # Where they were counted: a device is not waited for.
        self.code_counts = self.code_counts.to(counts.device) + counts
        self.images_counted += int(images)
        if self.images_counted < self.num_examples:
            return {}
        figures = {f"epoch_{k}": v for k, v in code_figures(self.code_counts).items()}
        self.code_counts.zero_()
        self.images_counted = 0
        return figures

    def validate(self, module: nn.Module, device: torch.device, step: int) -> Validation:
        """Loss, reconstruction error, and the latents' state over the validation split."""
        count = len(self.validation.images)
        sums: dict[str, float] = {}
        counts = torch.zeros_like(self.code_counts, device="cpu")
        kl = torch.zeros(())
        for start in range(0, count, VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, count))
            batch = self._read(self.validation, rows, device)
            stream = torch_stream(self.seed, "validation", start, device=device)
            result = module(batch.images, batch.labels, stream)
            added, looks = self.appearance.judge(batch.images, result.reconstructions)
            parts = {
                **looks,
                "loss": result.loss + added,
                "distortion_nats": result.distortion.mean(),
                "mse": _mse(result, batch.images),
                **result.statistics,
            }
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(rows) / count
            if result.codes is not None:
                counts += self._count(result.codes).cpu()
            kl = kl + result.kl.double().sum(dim=0).cpu() / count
        figures = sums | code_figures(counts)
        figures |= {name: value.item() for name, value in self._kl_figures(kl).items()}
        if counts.numel():
            figures |= self.monitor.observe_codes(step, counts)
        elif len(kl):
            figures |= self.monitor.observe_kl(step, kl)
        figures["psnr_db"] = -10 * float(np.log10(max(sums["mse"], 1e-12)))
        return Validation(sums["loss"], figures)

    def state(self) -> dict[str, Any]:
        """The code counts of the running epoch, what the monitor saw, and the adversary."""
        counts = {"counts": self.code_counts, "images": torch.tensor(self.images_counted)}
        return counts | self.monitor.state() | self.appearance.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.code_counts = state["counts"].clone()
        self.images_counted = int(state["images"])
        self.monitor.load_state(state)
        self.appearance.load_state(state)

    def _count(self, codes: Codes) -> Tensor:
        parts = self.module.codebook_parts
        return counts_per_codebook(codes, self.module.spec.num_codes, parts)

    def _read(self, split: PreparedSplit, rows: np.ndarray, device: torch.device) -> ImageBatch:
        labels = None
        if self.module.num_classes:
            assert split.labels is not None, "an autoencoder with classes is built from data's"
            labels = sent_to(torch.from_numpy(split.labels[rows]), device)
        return ImageBatch(read_images(split.images, rows, device), labels)

    def _kl_figures(self, kl: Tensor) -> dict[str, Tensor]:
        """KL of each group of dimensions, and of all, in nats per image."""
        if len(kl) == 0:
            return {}
        groups = self.module.kl_groups
        parts = kl.split(list(groups.values()))
        figures = {f"kl_nats_{n}": part.sum() for n, part in zip(groups, parts, strict=True)}
        return figures | {"kl_nats": kl.sum()}


def read_images(images: np.ndarray, rows: np.ndarray, device: torch.device) -> Images:
    """Rows of a memory-mapped uint8 array, in [-1, 1], on the device."""
    return from_pixels(sent_to(torch.from_numpy(np.ascontiguousarray(images[rows])), device))


def _mse(result: Reconstructed, images: Images) -> Tensor:
    """Mean squared error of pixels in [0, 1]."""
    return (result.reconstructions.detach().clamp(-1, 1) - images).square().mean() / 4
