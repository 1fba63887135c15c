"""A store that something is nothing without is asked for in one message, not in a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.__main__ import main
from pipelines.machine.servers import mlflow_server
from pipelines.promoting.promotion import promote_newest
from pipelines.promoting.rebuild import rebuild
from pipelines.records.needed_store import needed_store
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import free_port


def promote(root: Path) -> None:
    promote_newest(root, "length", alias="champion", model="m", dry_run=True, log=print)


def reproduce(root: Path) -> None:
    rebuild(root, "abc", print)


def show(root: Path) -> None:
    mlflow_server(root, 5711)


@pytest.mark.parametrize("use", [promote, reproduce, show])
def test_what_is_no_database_is_named(
    use: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"\x07 what is this" * 100)
    with pytest.raises(LatentlineError, match=r"mlflow\.db must be a store of MLflow .*database"):
        use(tmp_path)


def test_a_folder_in_its_place_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "mlflow.db").mkdir()
    assert main(["reproduce", "abc"]) == 1
    said = capsys.readouterr().err
    assert "unable to open database file" in said
    assert said.count("\n") == 1


def test_a_server_that_is_not_there_and_a_scheme_nobody_knows_are_named() -> None:
    nowhere = f"http://ada:secret@127.0.0.1:{free_port()}"
    for uri in (nowhere, "pigeon://post"):
        with pytest.raises(LatentlineError, match="must be a store of MLflow") as caught:
            with needed_store(uri):
                pass
        assert "secret" not in str(caught.value)


def test_what_goes_wrong_with_an_open_store_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), needed_store(f"sqlite:///{tmp_path}/mlflow.db"):
        raise KeyError
