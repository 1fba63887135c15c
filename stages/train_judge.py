"""Stage `train_judge`: the classifier in whose features images will be compared.

    python -m stages.train_judge

Reads data/prepared, writes data/judge: weights, config, history.csv; its accuracy on the test
split, to be read beside every figure it takes part in, stands in the manifest.
"""

import sys
from pathlib import Path

from stages.assembly.judge import JudgeConfig, JudgeOptions, build_judge, save_judge
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.devices import Device, resolve_device
from stages.core.randomness import seed_everything
from stages.core.ranks import ComputeOptions
from stages.core.sections import Section
from stages.core.seeds import Seed
from stages.core.stage import Run, run_stage
from stages.stores.prepared import open_prepared
from stages.tasks.judge import JudgeTask
from stages.training.loop import fit
from stages.training.options import TrainingOptions

OUTPUT = Path("data/judge")
LEAST_SKILL = 0.1
"""Share of what guessing gets wrong that a judge should get right, to be called one."""


class Params(Section):
    """The sections this stage reads."""

    seed: Seed
    device: Device
    compute: ComputeOptions
    judge: JudgeOptions
    train_judge: TrainingOptions


def train_judge(params: Params, run: Run) -> None:
    """Fit the judge on the training split, measure it on the test split, save it."""
    prepared = open_prepared(run.inputs["prepared"].path)
    device = resolve_device(params.device)
    config = JudgeConfig(
        judge=params.judge, image=prepared.image_shape, num_classes=prepared.num_classes
    )
    seed_everything(params.seed, "judge")
    task = JudgeTask(build_judge(config), prepared.split("train"), prepared.split("validation"))
    fitted = fit(task, params.train_judge, run, seed=params.seed, device=device)
    if not run.is_first:
        return
    _, accuracy = task.judge(fitted.module, prepared.split("test"), device)
    about = {
        "prepared": run.inputs["prepared"].digest,
        "taught": config.taught,
        "test_accuracy": accuracy,
        "best_step": fitted.best_step,
        "parameters": sum(p.numel() for p in fitted.module.parameters()),
    }
    with new_artifact(OUTPUT, "judge", about) as folder:
        save_judge(folder, fitted.module, config)
        fitted.history.to_csv(folder / "history.csv", index=False)
    run.tracker.log_metrics({"test_accuracy": accuracy})
    _warn_of_guessing(accuracy, task.guessing(prepared.split("test")), config, run)
    run.tracker.log_file(OUTPUT / "history.csv")
    run.tracker.log_model("judge", OUTPUT, open_artifact(OUTPUT, "judge").digest)


def _warn_of_guessing(accuracy: float, guessing: float, config: JudgeConfig, run: Run) -> None:
    """Say so where distances would be taken in the features of a network that saw nothing."""
    if accuracy - guessing > LEAST_SKILL * (1 - guessing):
        return
    what = f"{accuracy:.1%} of the {config.taught} of the test split right, guessing {guessing:.1%}"
    run.tracker.log_tag("judge", f"warning: {what}")
    print(
        f"judge warning: {what}; its distances mean little. Raise train_judge.steps or judge.width",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run_stage(
        "train_judge",
        Params,
        train_judge,
        inputs={"prepared": Path("data/prepared")},
        divided=lambda params: params.train_judge.pieces > 1,
    )
