import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from stages.assembly.judge import JudgeConfig, JudgeOptions, build_judge, load_judge, save_judge
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.errors import ArtifactError
from stages.core.intensities import from_pixels
from stages.core.ranks import ComputeOptions
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import open_tracker
from stages.nn.rotation import rotate
from stages.stores.prepared import PreparedSplit, PreparedWriter
from stages.tasks.judge import JudgeTask
from stages.train_judge import Params, train_judge
from stages.training.options import TrainingOptions

CPU = torch.device("cpu")
IMAGE = ImageShape(channels=2, height=9, width=14)
TRAINING = {
    "steps": 60,
    "batch_size": 24,
    "pieces": 1,
    "learning_rate": 1e-2,
    "final_learning_rate": 0.0,
    "warmup_steps": 5,
    "decay": "cosine",
    "weight_decay": 0.0,
    "betas": (0.9, 0.99),
    "gradient_clip": 1.0,
    "skip_above_norm": 0.0,
    "ema_decay": 0.9,
    "precision": "float32",
    "channels_last": False,
    "compile": False,
    "validate_every": 60,
    "patience": 0,
    "checkpoint_seconds": 1e9,
}


def config(num_classes: int, width: int = 8) -> JudgeConfig:
    return JudgeConfig(judge=JudgeOptions(width=width), image=IMAGE, num_classes=num_classes)


def pixels(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *IMAGE), generator=random, dtype=torch.uint8)


def test_saved_and_loaded_it_sees_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build_judge(config(5))
    with new_artifact(tmp_path / "judge", "judge", {"test_accuracy": 0.75}) as folder:
        save_judge(folder, network, config(5))
    judge = load_judge(tmp_path / "judge", CPU)
    assert judge.config == config(5) and judge.test_accuracy == 0.75 and judge.name == "classifier"
    features = judge.features(pixels(3))
    assert features.shape == (3, judge.network.feature_dim) and features.dtype == torch.float32
    torch.testing.assert_close(judge.logits(pixels(3)), network(from_pixels(pixels(3))))
    assert torch.equal(judge.decide(features), judge.logits(pixels(3)))


def test_an_image_has_the_same_features_in_any_batch() -> None:
    torch.manual_seed(1)
    network = build_judge(config(5)).eval()
    images = from_pixels(pixels(6))
    torch.testing.assert_close(network.features(images)[2:3], network.features(images[2:3]))


def test_without_classes_it_is_taught_the_four_rotations() -> None:
    assert config(0).taught == "rotations" and config(0).num_outputs == 4
    assert config(3).taught == "classes" and config(3).num_outputs == 3


def test_the_width_must_suit_the_normalisation() -> None:
    with pytest.raises(ValidationError, match="multiple of 8"):
        JudgeOptions(width=12)


def test_another_artifact_is_no_judge(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "prior", "prior", {}):
        pass
    with pytest.raises(ArtifactError, match="judge"):
        load_judge(tmp_path / "prior", CPU)


def test_four_right_angles_are_none_and_each_turn_is_its_own() -> None:
    images = from_pixels(pixels(4))
    square = images[:, :, :, 2:11]
    turned = rotate(images, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(turned[0], square[0])
    assert torch.equal(turned[1, :, 0], square[1, :, :, -1])
    assert torch.equal(turned[2], square[2].flip(1, 2))
    back = rotate(turned, torch.tensor([0, 3, 2, 1]))
    assert torch.equal(back, square)


def test_validation_turns_every_image_all_four_ways() -> None:
    split = PreparedSplit(pixels(5).numpy(), None, None)
    task = JudgeTask(build_judge(config(0)), split, split)

    class Upright(torch.nn.Module):
        """Always says: not turned."""

        def forward(self, images):
            return torch.tensor([9.0, 0, 0, 0]).expand(len(images), 4)

    loss, accuracy = task.judge(Upright(), split, CPU)
    assert accuracy == 0.25 and loss == pytest.approx(0.75 * 9, abs=0.01)


def taught(folder: Path, names: list[str] | None, *, seen: bool) -> tuple[Run, Path]:
    """The stage on images that show their turn and class, or nothing; the run, and the judge."""
    random = np.random.default_rng(0)
    about = {"image_shape": list(IMAGE), "class_names": names}
    with (
        new_artifact(folder / "data/prepared", "prepared", about) as made,
        PreparedWriter(made, IMAGE) as writer,
    ):
        for split, count in {"train": 64, "validation": 16, "test": 1000}.items():
            labels = np.arange(count) % 2
            images = random.integers(0, 80, (count, *IMAGE)).astype(np.uint8)
            if seen:
                # Bright below, dark above: the turn shows; and classes differ in brightness.
                images[:, :, :6] //= 4
                images += (100 * labels).astype(np.uint8)[:, None, None, None]
            writer.add(split, images, labels if names else None, {})
    inputs = {"prepared": open_artifact(folder / "data/prepared", "prepared")}
    work = folder / "work"
    work.mkdir()
    run = Run("train_judge", work, inputs, open_tracker("train_judge", work), threading.Event())
    params = Params(
        seed=0,
        device="cpu",
        compute=ComputeOptions(processes=1, hosts=1, prior_strategy="ddp"),
        judge=JudgeOptions(width=8),
        train_judge=TrainingOptions(**TRAINING),
    )
    train_judge(params, run)
    return run, folder / "data/judge"


@pytest.mark.parametrize("names", [["dark", "light"], None])
def test_the_stage_learns_what_is_easily_seen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    names: list[str] | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    run, folder = taught(tmp_path, names, seen=True)
    judge = load_judge(folder, CPU)
    assert judge.test_accuracy > 0.9
    assert judge.artifact.about["prepared"] == run.inputs["prepared"].digest
    assert judge.config.taught == ("classes" if names else "rotations")
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "guessing"), [(["one", "other"], "classes .* 50.0%"), (None, "rotations .* 25.0%")]
)
def test_the_stage_warns_of_a_judge_that_only_guesses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    names: list[str] | None,
    guessing: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    taught(tmp_path, names, seen=False)
    said = capsys.readouterr().err
    assert re.search(rf"judge warning: .* of the {guessing}; .* Raise train_judge.steps", said)


def test_guessing_always_says_the_commonest_class() -> None:
    labels = np.array([0, 2, 2, 1, 2])
    split = PreparedSplit(pixels(5).numpy(), labels, None)
    assert JudgeTask.guessing(split) == 0.6
