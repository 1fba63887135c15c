"""Stage `train_autoencoder`: the first stage, images to latents and back.

    python -m stages.train_autoencoder

Reads data/prepared, writes data/autoencoder: weights, config, history.csv, reconstructions.png.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from stages.assembly.first_stage import FirstStageParams, build_first_stage, save_first_stage
from stages.autoencoders.base import Autoencoder
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.devices import Device, resolve_device
from stages.core.intensities import from_pixels, to_pixels
from stages.core.pictures import labelled_rows, save_png
from stages.core.randomness import seed_everything
from stages.core.stage import Run, run_stage
from stages.stores.prepared import PreparedSplit, open_prepared
from stages.training.autoencoder_task import AutoencoderTask
from stages.training.loop import Fitted, fit
from stages.training.options import TrainingOptions

OUTPUT = Path("data/autoencoder")
PICTURED = 16


class Params(FirstStageParams):
    """The sections this stage reads."""

    seed: int = Field(ge=0)
    device: Device
    train_autoencoder: TrainingOptions


def train_autoencoder(params: Params, run: Run) -> None:
    """Fit the autoencoder of the parameters and save its best weights."""
    prepared = open_prepared(run.inputs["prepared"].path)
    device = resolve_device(params.device)
    seed_everything(params.seed, "autoencoder")
    autoencoder = build_first_stage(params, prepared.image_shape)
    validation = prepared.split("validation")
    task = AutoencoderTask(autoencoder, prepared.split("train"), validation, params.seed)
    fitted = fit(task, params.train_autoencoder, run, seed=params.seed, device=device)
    about = {
        "prepared": run.inputs["prepared"].digest,
        "best_step": fitted.best_step,
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
    }
    with new_artifact(OUTPUT, "autoencoder", about) as folder:
        save_first_stage(folder, fitted.module, params, prepared.image_shape)
        fitted.history.to_csv(folder / "history.csv", index=False)
        _picture(folder / "reconstructions.png", fitted, validation, device)
    run.tracker.log_image(OUTPUT / "reconstructions.png", "reconstructions")
    run.tracker.log_file(OUTPUT / "history.csv")
    run.tracker.log_model("autoencoder", OUTPUT, open_artifact(OUTPUT, "autoencoder").digest)


@torch.inference_mode()
def _picture(path: Path, fitted: Fitted, validation: PreparedSplit, device: torch.device) -> None:
    """Validation images above their reconstructions."""
    autoencoder: Autoencoder = fitted.module
    pixels = np.array(validation.images[:PICTURED])
    images = from_pixels(torch.from_numpy(pixels).to(device))
    latents = autoencoder.encode(images)
    points = latents if isinstance(latents, torch.Tensor) else latents.mean
    means = autoencoder.likelihood.mean(autoencoder.decode(points))
    rows = [("original", pixels), ("rebuilt", to_pixels(means).cpu().numpy())]
    save_png(labelled_rows(rows), path)


if __name__ == "__main__":
    run_stage(
        "train_autoencoder", Params, train_autoencoder, inputs={"prepared": Path("data/prepared")}
    )
