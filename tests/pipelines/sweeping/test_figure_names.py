"""What is said of a stage's figures before it runs is true of what it writes."""

import pytest

from pipelines.sweeping.figure_names import ALL_FIGURES, doubts
from pipelines.sweeping.file import Sweep
from stages.core.sections import validate
from tests.pipelines.sweeping.test_file import GRID, PRUNING
from tests.tasks.test_passes import fit, task
from tests.tasks.test_tasks import PLAN, prior_task, train

OUTPUTS = {"train_prior": ["data/prior"], "train_autoencoder": ["data/autoencoder"]}


@pytest.mark.parametrize("kind", ["codes", "continuous", "in passes", "of nothing learned"])
def test_a_training_of_a_prior_writes_these_figures_and_no_others(kind, tmp_path):
    if kind in ("codes", "continuous"):
        plan = PLAN.model_copy(update={"skip_above_norm": 1e9})
        written = set(train(prior_task(kind), tmp_path, plan=plan).history)
        assert written == set(ALL_FIGURES["train_prior"])
    else:
        toy = task() if kind == "in passes" else task({"kind": "standard_normal"})
        written = set(fit(toy, tmp_path).history)
        assert {"step", "validation_nats_per_image"} <= written <= set(ALL_FIGURES["train_prior"])


def test_figures_that_the_workspace_does_not_have_are_doubted(tmp_path):
    def doubted(figure):
        objective = {"stage": "train_autoencoder", "figure": figure, "direction": "lower"}
        sweep = validate(Sweep, GRID | {"objective": objective, "pruning": PRUNING}, source="it")
        return doubts(sweep, tmp_path, OUTPUTS)

    assert doubted("validation_los") == [], "nothing is known of what has not run"
    folder = tmp_path / "data/autoencoder"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("step,loss,validation_loss\n10,2.0,3.0\n")
    [told] = doubted("validation_los")
    assert told.startswith("warning: objective.figure: must be one that train_autoencoder writes;")
    assert "did you mean 'validation_loss'? there are: loss, step, validation_loss" in told
    assert doubted("validation_loss") == []
