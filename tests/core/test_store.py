"""A store that cannot be opened is told at once: MLflow alone asks ten times, for 100 seconds."""

import shutil
import sqlite3
from importlib import import_module

import pytest

from stages.core.store import SQLITE, open_experiment, opened_store


def a_folder(path):
    path.mkdir()


def no_database(path):
    path.write_bytes(b"these are notes, and no database" * 100)


@pytest.mark.parametrize("put_there", [a_folder, no_database])
def test_what_cannot_be_opened_is_not_asked_again_and_again(tmp_path, monkeypatch, put_there):
    client = import_module("mlflow.tracking.client")
    monkeypatch.setattr(client, "MlflowClient", lambda **_: pytest.fail("MLflow was asked"))
    put_there(tmp_path / "mlflow.db")

    with pytest.raises(sqlite3.DatabaseError), opened_store(f"{SQLITE}{tmp_path / 'mlflow.db'}"):
        pass


def test_a_new_store_is_made_and_an_old_one_opened(tmp_path):
    uri = f"{SQLITE}{tmp_path / 'below' / 'mlflow.db'}"

    for _ in range(2):
        with opened_store(uri) as client:
            assert [each.name for each in client.search_experiments()] == ["Default"]


def recorded(root):
    """Id of a run with a file, in the project's own store, and where its artifacts are."""
    uri = f"{SQLITE}{root / 'mlflow.db'}"
    with opened_store(uri) as client:
        experiment = open_experiment(client, uri, "two words", root)
    run = client.create_run(experiment).info
    client.log_text(run.run_id, "seen", "note.txt")
    return client, run.run_id, run.artifact_uri


@pytest.mark.parametrize("keep", [False, True], ids=["moved", "copied"])
def test_a_project_elsewhere_finds_and_writes_its_own_artifacts(tmp_path, keep):
    before, now = tmp_path / "my project 2", tmp_path / "my project"
    before.mkdir()
    _, old, _ = recorded(before)
    shutil.copytree(before, now)
    if not keep:
        shutil.rmtree(before)
    files = sorted(before.rglob("*"))

    client, new, address = recorded(now)

    assert address.startswith(now.as_uri())
    for run in (old, new):
        assert client.get_run(run).info.artifact_uri.startswith(now.as_uri())
        assert [each.path for each in client.list_artifacts(run)] == ["note.txt"]
    assert sorted(before.rglob("*")) == files


def test_artifacts_of_a_shared_store_stay_where_they_are(tmp_path):
    uri = f"{SQLITE}{tmp_path / 'shared.db'}"
    for name in ("one", "other"):
        (tmp_path / name / "mlartifacts").mkdir(parents=True)
        with opened_store(uri) as client:
            experiment = open_experiment(client, uri, "both", tmp_path / name)
    location = client.get_experiment(experiment).artifact_location
    assert location.startswith((tmp_path / "one").as_uri())


def test_artifacts_of_a_branch_within_the_project_stay_there(tmp_path):
    uri, branch = f"{SQLITE}{tmp_path / 'mlflow.db'}", tmp_path / ".work" / "branch"
    (tmp_path / "mlartifacts").mkdir()
    for root in (branch, tmp_path):
        with opened_store(uri) as client:
            experiment = open_experiment(client, uri, "both", root)
    assert client.get_experiment(experiment).artifact_location.startswith(branch.as_uri())
