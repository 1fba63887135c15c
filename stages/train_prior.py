"""Stage `train_prior`: the second stage, p(latents given class).

    python -m stages.train_prior

Reads data/latents (never the images, never the autoencoder), writes data/prior: weights, config,
history.csv. A prior is trained by gradient steps, fitted in passes (`gaussian_mixture`), or, with
nothing to learn (`uniform`, `standard_normal`), written as it is.
"""

from pathlib import Path

from stages.assembly.second_stage import SecondStageParams, build_second_stage, save_second_stage
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.devices import Device, resolve_device
from stages.core.randomness import seed_everything
from stages.core.ranks import ComputeOptions
from stages.core.seeds import Seed
from stages.core.stage import Run, run_stage
from stages.stores.latents import open_latents
from stages.tasks.passes import fit_in_passes
from stages.tasks.prior import PriorTask
from stages.training.loop import fit
from stages.training.options import TrainingOptions

OUTPUT = Path("data/prior")


class Params(SecondStageParams):
    """The sections this stage reads."""

    seed: Seed
    device: Device
    compute: ComputeOptions
    train_prior: TrainingOptions


def train_prior(params: Params, run: Run) -> None:
    """Fit the prior of the parameters and save its best weights."""
    latents = open_latents(run.inputs["latents"].path)
    device = resolve_device(params.device)
    seed_everything(params.seed, "prior")
    prior = build_second_stage(params, latents.spec, latents.num_classes)
    task = PriorTask(prior, latents.split("train"), latents.split("validation"), params.seed)
    if params.prior.trainable:
        strategy = params.compute.prior_strategy
        fitted = fit(
            task, params.train_prior, run, seed=params.seed, device=device, strategy=strategy
        )
    else:
        fitted = fit_in_passes(task, run, device=device)
    if not run.is_first:
        return
    about = {
        "latents": latents.artifact.digest,
        "autoencoder": latents.autoencoder_digest,
        "best_step": fitted.best_step,
        "parameters": sum(p.numel() for p in prior.parameters()),
    }
    with new_artifact(OUTPUT, "prior", about) as folder:
        save_second_stage(
            folder,
            fitted.module,
            params,
            latents.autoencoder_digest,
            latents.artifact.digest,
            latents.class_names,
        )
        fitted.history.to_csv(folder / "history.csv", index=False)
    run.tracker.log_file(OUTPUT / "history.csv")
    run.tracker.log_model("prior", OUTPUT, open_artifact(OUTPUT, "prior").digest)


if __name__ == "__main__":
    run_stage(
        "train_prior",
        Params,
        train_prior,
        inputs={"latents": Path("data/latents")},
        divided=lambda params: params.prior.trainable and params.train_prior.pieces > 1,
    )
