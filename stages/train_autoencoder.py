"""Stage `train_autoencoder`: the first stage, images to latents and back.

    python -m stages.train_autoencoder

Reads data/prepared, writes data/autoencoder: weights, config, history.csv, reconstructions.png and
units_over_time.png (KL per latent dimension, or use of each code, at every validation).
"""

from pathlib import Path

import numpy as np
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage, save_first_stage
from stages.autoencoders.base import Autoencoder
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.devices import Device, resolve_device
from stages.core.intensities import from_pixels, to_pixels
from stages.core.pictures import labelled_rows, save_png
from stages.core.randomness import seed_everything
from stages.core.ranks import ComputeOptions
from stages.core.seeds import Seed
from stages.core.stage import Run, run_stage
from stages.stores.prepared import PreparedSplit, open_prepared
from stages.tasks.adversary import AdversaryOptions
from stages.tasks.appearance import build_appearance
from stages.tasks.autoencoder import AutoencoderTask
from stages.tasks.collapse import CollapseMonitor
from stages.tasks.collapse_options import CollapseOptions
from stages.tasks.perceptual import PerceptualOptions
from stages.training.loop import Fitted, fit
from stages.training.options import TrainingOptions

OUTPUT = Path("data/autoencoder")
PICTURED = 16


class Params(FirstStageParams):
    """The sections this stage reads."""

    seed: Seed
    device: Device
    compute: ComputeOptions
    train_autoencoder: TrainingOptions
    collapse: CollapseOptions
    perceptual: PerceptualOptions
    adversary: AdversaryOptions


def train_autoencoder(params: Params, run: Run) -> None:
    """Fit the autoencoder of the parameters and save its best weights."""
    prepared = open_prepared(run.inputs["prepared"].path)
    device = resolve_device(params.device)
    seed_everything(params.seed, "autoencoder")
    autoencoder = build_first_stage(params, prepared.image_shape, prepared.num_classes)
    validation = prepared.split("validation")
    monitor = CollapseMonitor(params.collapse, run.tracker.log_tag)
    appearance = build_appearance(
        params.perceptual,
        params.adversary,
        prepared.image_shape,
        seed=params.seed,
        device=device,
    )
    train = prepared.split("train")
    task = AutoencoderTask(autoencoder, train, validation, monitor, params.seed, appearance)
    fitted = fit(task, params.train_autoencoder, run, seed=params.seed, device=device)
    if not run.is_first:
        return
    about = {
        "prepared": run.inputs["prepared"].digest,
        "best_step": fitted.best_step,
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
        **appearance.about,
    }
    with new_artifact(OUTPUT, "autoencoder", about) as folder:
        save_first_stage(folder, fitted.module, params, prepared.image_shape, prepared.num_classes)
        fitted.history.to_csv(folder / "history.csv", index=False)
        _picture(folder / "reconstructions.png", fitted, validation, device)
        monitor.draw(folder / "units_over_time.png", autoencoder.spec.kind)
    for picture in ("reconstructions", "units_over_time"):
        run.tracker.log_image(OUTPUT / f"{picture}.png", picture)
    run.tracker.log_file(OUTPUT / "history.csv")
    run.tracker.log_model("autoencoder", OUTPUT, open_artifact(OUTPUT, "autoencoder").digest)


@torch.inference_mode()
def _picture(path: Path, fitted: Fitted, validation: PreparedSplit, device: torch.device) -> None:
    """Validation images above their reconstructions."""
    autoencoder: Autoencoder = fitted.module
    # Evenly spaced: the first ones of a folder of classes are all of one.
    count = len(validation.images)
    pictured = min(PICTURED, count)
    rows = np.arange(pictured) * count // pictured
    pixels = np.array(validation.images[rows])
    labels = None
    if autoencoder.num_classes:
        assert validation.labels is not None
        labels = torch.from_numpy(validation.labels[rows]).to(device)
    latents = autoencoder.encode(from_pixels(torch.from_numpy(pixels).to(device)), labels)
    points = latents if isinstance(latents, torch.Tensor) else latents.mean
    means = autoencoder.likelihood.mean(autoencoder.decode(points, labels))
    shown = [("original", pixels), ("rebuilt", to_pixels(means).cpu().numpy())]
    save_png(labelled_rows(shown), path)


if __name__ == "__main__":
    run_stage(
        "train_autoencoder",
        Params,
        train_autoencoder,
        inputs={"prepared": Path("data/prepared")},
        divided=lambda params: params.train_autoencoder.pieces > 1,
    )
