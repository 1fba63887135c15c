"""The median rule stops what is hopeless among its like, and a journal tells how far a stage is."""

from pipelines.sweeping.file import Pruning
from pipelines.sweeping.pruning import Curves, Progress, curve_of_history
from stages.core.journal import JournalWriter, new_journal_folder

RULE = Pruning(stage="train_prior", figure="validation_nats", from_step=20, peers=3)


def curves(*best_at_20: float) -> Curves:
    found = Curves(RULE)
    for number, value in enumerate(best_at_20):
        found.put("same latents", f"peer {number}", {10: 9.0, 20: value, 30: value - 1})
    return found


def test_worse_than_the_median_of_its_peers_is_hopeless():
    found = curves(1.0, 2.0, 3.0)
    found.put("same latents", "mine", {10: 5.0, 20: 2.5})
    why = found.verdict("same latents", "mine")
    assert why == "validation_nats 2.5 at step 20 is above the median 2 of 3 others"
    found.put("same latents", "mine", {10: 5.0, 20: 2.0})
    assert found.verdict("same latents", "mine") is None, "the median itself is not"
    found.put("same latents", "mine", {10: 1.5, 20: 7.0})
    assert found.verdict("same latents", "mine") is None, "the best so far counts"


def test_it_waits_for_the_step_for_peers_and_for_those_that_have_come_as_far():
    found = curves(1.0, 2.0, 3.0)
    found.put("same latents", "mine", {10: 99.0})
    assert found.verdict("same latents", "mine") is None
    found.put("same latents", "mine", {40: 99.0})
    assert found.verdict("same latents", "mine") is None, "nobody has come to step 40"
    found.put("same latents", "mine", {20: 2.5, 40: 2.4})
    assert "at step 20" in (found.verdict("same latents", "mine") or ""), "they have come to 30"
    few = curves(1.0, 2.0)
    few.put("same latents", "mine", {20: 99.0})
    assert few.verdict("same latents", "mine") is None
    assert few.verdict("same latents", "nobody") is None


def test_other_latents_are_no_peers():
    found = curves(1.0, 2.0, 3.0)
    found.put("other latents", "mine", {20: 99.0})
    assert found.verdict("other latents", "mine") is None


def test_a_figure_that_nobody_has_shown_is_known():
    found = curves()
    assert found.are_empty
    found.put("same latents", "mine", {})
    assert found.are_empty
    found.put("other latents", "another", {10: 1.0})
    assert not found.are_empty


def test_progress_reads_on_and_is_kept_over_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.sweeping.pruning.LOOK_SECONDS", 0.0)
    kept = tmp_path / ".work" / "progress.json"
    progress = Progress(tmp_path, "train_prior", "validation_nats", kept)
    assert not progress.look()
    writer = JournalWriter(new_journal_folder(tmp_path, "train_prior"))
    other = JournalWriter(new_journal_folder(tmp_path, "train_autoencoder"))
    other.append("metrics", metrics={"validation_nats": 1.0}, step=10)
    writer.append("open")
    writer.append("metrics", metrics={"loss": 1.0}, step=5)
    writer.append("metrics", metrics={"validation_nats": 4.0}, step=10)
    assert progress.look() and progress.curve == {10: 4.0}
    assert not progress.look()
    writer.append("metrics", metrics={"validation_nats": 3.0}, step=20)
    assert progress.look() and progress.curve == {10: 4.0, 20: 3.0}
    # The stage was killed; the next attempt has a journal of its own.
    again = JournalWriter(new_journal_folder(tmp_path, "train_prior"))
    again.append("metrics", metrics={"validation_nats": 2.0}, step=30)
    progress = Progress(tmp_path, "train_prior", "validation_nats", kept)
    assert progress.curve == {10: 4.0, 20: 3.0}
    assert progress.look() and progress.curve[30] == 2.0


def test_a_finished_training_tells_its_whole_curve(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/history.csv").write_text("step,loss,nats\n10,1.0,\n20,0.9,7.5\n30,0.8,7\n")
    assert curve_of_history(tmp_path, ["nothing", "out"], "nats") == {20: 7.5, 30: 7.0}
    assert curve_of_history(tmp_path, ["out"], "no such") == {}
    assert curve_of_history(tmp_path, [], "nats") == {}
