"""What the contest's rates are worth: CIFAR-10 rebuilt after equal processor time.

    python -m benchmarks.autoencoder_step.reconstruction --root DATA/cifar10 --seconds 300

Both of ours and pythae's, 512 codes of 16 numbers on an 8 x 8 grid, see the same images in the same
order under AdamW, gradients clipped at norm 1; the learning rate falls along a cosine over the time
each has. Judged is the whole test split, in 8 bits. Writes a table, what was run and sheet.png.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.autoencoder_step.contest import OURS, OURS_CONV, make_autoencoder
from benchmarks.autoencoder_step.peers import pythae_loss, pythae_rebuilt
from benchmarks.side_by_side.ceiling import fastest_precision
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS, settings_of
from benchmarks.side_by_side.results import write_table
from stages.core.allocation import keep_freed_memory
from stages.core.devices import autocast
from stages.core.intensities import from_pixels, to_pixels
from stages.core.pictures import labelled_rows, save_png
from stages.datasets.cifar10 import Cifar10, Cifar10Options

__all__ = ["CONTENDERS", "Trained", "main", "train"]

BATCH, WARM_UP, SHOWN = 128, 100, 16
CPU = torch.device("cpu")


class Network(NamedTuple):
    """What a training needs to know of an autoencoder; images are in [-1, 1]."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    after_step: Callable[[], object]
    rebuilt: Callable[[Tensor], Tensor]


class Trained(NamedTuple):
    """What became of it."""

    steps: int
    rebuilt: np.ndarray
    """The test images, uint8."""


def ours(sections: dict, first: Tensor, seed: int) -> Network:
    """One of ours, its codebook started from the first images."""
    module, generator = make_autoencoder(seed, sections), torch.Generator().manual_seed(seed)
    module.start_from_data(first, None, generator)
    return Network(
        module,
        lambda images: module(images, None, generator).loss,
        lambda: module.after_step(generator),
        lambda images: module(images, None, generator).reconstructions,
    )


def pythae(first: Tensor, seed: int) -> Network:
    """The peer, which takes images in [0, 1]."""
    torch.manual_seed(seed)
    # The loss reads this tensor; each batch is written into it.
    read = torch.empty_like(first[:BATCH], memory_format=torch.channels_last)
    module, loss = pythae_loss(read)

    def loss_of(images: Tensor) -> Tensor:
        read.copy_((images + 1) / 2)
        return loss()

    def rebuilt(images: Tensor) -> Tensor:
        return 2 * pythae_rebuilt(module, (images + 1) / 2) - 1

    return Network(module.to(memory_format=torch.channels_last), loss_of, lambda: None, rebuilt)


CONTENDERS: dict[str, Callable[[Tensor, int], Network]] = {
    "ours, patch_conv + ema_vq": lambda first, seed: ours(OURS, first, seed),
    "ours, conv + ema_vq": lambda first, seed: ours(OURS_CONV, first, seed),
    "pythae ResNet VQ-VAE": pythae,
}


def train(
    make: Callable[[Tensor, int], Network],
    pixels: Tensor,
    test: Tensor,
    seconds: float,
    rate: float,
    seed: int,
) -> Trained:
    """Train for so many processor seconds, then rebuild the test images.

    Args:
        make: Builds the network from some images in [-1, 1] and a seed.
        pixels: Training images, uint8, at least one batch.
        test: Test images, uint8.
        seconds: Of this process, loading of batches included.
        rate: Largest learning rate.
        seed: Of weights and order.
    """
    order = torch.Generator().manual_seed(seed)
    network = make(_images(pixels[torch.randperm(len(pixels), generator=order)[: 4 * BATCH]]), seed)
    parameters = list(network.module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), fused=True)
    network.module.train()
    started, steps, rows = time.process_time(), 0, torch.empty(0, dtype=torch.int64)
    while (passed := (time.process_time() - started) / seconds) < 1:
        if len(rows) < BATCH:
            rows = torch.randperm(len(pixels), generator=order)
        images, rows = _images(pixels[rows[:BATCH]]), rows[BATCH:]
        warm = min(1.0, (steps + 1) / WARM_UP)
        optimizer.param_groups[0]["lr"] = rate * warm * (1 + math.cos(math.pi * passed)) / 2
        with autocast(fastest_precision(CPU), CPU):
            loss = network.loss(images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        network.after_step()
        steps += 1
    network.module.eval()
    with torch.no_grad():
        rebuilt = [to_pixels(network.rebuilt(_images(part))) for part in test.split(2 * BATCH)]
    return Trained(steps, torch.cat(rebuilt).numpy())


def _images(pixels: Tensor) -> Tensor:
    return from_pixels(pixels).contiguous(memory_format=torch.channels_last)


def main(arguments: list[str] | None = None) -> None:
    """Train each in turn and write what they rebuild."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoencoder_step.reconstruction")
    parser.add_argument("--root", required=True, help="folder of CIFAR-10, python version")
    parser.add_argument("--seconds", type=float, default=300, help="of each, of processor time")
    parser.add_argument("--rate", type=float, default=4e-3, help="largest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    parser.add_argument("--output", type=Path, default=RESULTS / "autoencoder_reconstruction")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    settings = settings_of(options) | {"root": "CIFAR-10"}
    run = describe_run("python -m benchmarks.autoencoder_step.reconstruction", settings)
    pixels, test = _cifar10(options.root)
    rows, found = [("test images", test[:SHOWN].numpy())], []
    for name, make in CONTENDERS.items():
        trained = train(make, pixels, test, options.seconds, options.rate, options.seed)
        found.append(_judged(name, trained, test.numpy()))
        rows.append((name, trained.rebuilt[:SHOWN]))
        print(found[-1], flush=True)
    write_table(options.output, pd.DataFrame(found), _markdown(found), run)
    save_png(labelled_rows(rows), options.output / "sheet.png")


def _cifar10(root: str) -> tuple[Tensor, Tensor]:
    splits: dict[str | None, list[np.ndarray]] = {"train": [], "test": []}
    options = Cifar10Options(
        kind="cifar10",
        watch=root,
        root=root,
        download=False,
        # Asked for, and nothing to the source itself: no image is held out here.
        validation_fraction=0.05,
        test_fraction=0.0,
    )
    for block in Cifar10(options).blocks([]):
        splits[block.split].append(block.images)
    train, test = (torch.from_numpy(np.concatenate(splits[name])) for name in ("train", "test"))
    return train, test


def _judged(name: str, trained: Trained, test: np.ndarray) -> dict[str, object]:
    squares = (trained.rebuilt / np.float32(255) - test / np.float32(255)) ** 2
    errors = squares.mean(axis=(1, 2, 3), dtype=np.float64)
    psnr = float((-10 * np.log10(errors)).mean())
    return {"contender": name, "steps": trained.steps, "psnr": psnr, "mse": float(errors.mean())}


def _markdown(found: list[dict[str, object]]) -> str:
    head = "| contender | steps | PSNR, dB, mean of images | MSE of pixels in [0, 1] |\n"
    line = "| {contender} | {steps:,} | {psnr:.2f} | {mse:.5f} |\n"
    return head + "|---|---|---|---|\n" + "".join(line.format(**row) for row in found)


if __name__ == "__main__":
    main()
