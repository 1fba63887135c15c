"""A store that cannot be opened is told at once: MLflow alone asks ten times, for 100 seconds."""

import sqlite3
from importlib import import_module

import pytest

from stages.core.store import SQLITE, opened_store


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
