"""An outcome counts as long as the same is asked."""

from pipelines.workspace.kept_outcomes import keep, kept


def test_it_is_found_while_the_question_is_the_same(tmp_path):
    assert kept(tmp_path, {"params": "a"}) is None
    keep(tmp_path, {"params": "a"}, {"loss": 1.5, "values": [1, 2]})
    assert kept(tmp_path, {"params": "a"}) == {"loss": 1.5, "values": [1, 2]}
    assert kept(tmp_path, {"params": "b"}) is None
    (tmp_path / "outcome.json").write_text("{")
    assert kept(tmp_path, {"params": "a"}) is None, "half a file is none"
