"""A recorded line is run again and its bytes compared; what cannot be is refused in one message."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking.client import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.operations import project_root
from pipelines.promoting.rebuild import compare_locks, rebuild
from pipelines.two_stage import LineConfig, two_stage
from stages.core.errors import ArtifactError, LatentlineError
from stages.core.store import open_experiment, opened_store, tracking_uri
from tests.pipelines.trivial_line import Line


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(root))


@pytest.mark.slow
def test_a_line_comes_out_the_same(
    line: Line, api_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTLINE_TRACKING", "on")
    # Parameters that no commit holds are kept with the run.
    line.set(second="{value: changed}")
    with temporary_settings({PREFECT_API_URL: api_url}):
        result = two_stage(LineConfig(workspace=str(line.root)))
    run_id = str(result.record_url).rpartition("/")[2]
    line.set(second="{value: meanwhile}")
    said: list[str] = []
    compared = rebuild(line.root, run_id, said.append)
    assert {each.path for each in compared if each.kind == "output"} == {
        "data/first",
        "data/second",
        "data/third",
        "data/metrics",
    }
    assert all(each.equal and each.here for each in compared)
    # Computed there, not restored: the project's cache has all of it.
    assert [text for text in said if text.startswith("Running")] == [
        f"Running stage '{stage}'" for stage in ("first", "second", "third")
    ]
    assert client_of(line.root).get_run(run_id).data.tags["latentline.reproduced"] == "equal"
    assert (line.root / ".work" / "reproduce" / run_id / "data/second/value.txt").read_text() == (
        "changed 5"
    )


def lock(**sums: str) -> dict[str, Any]:
    outs = [{"path": f"data/{name}", "md5": value} for name, value in sums.items()]
    outs.append({"path": "data/runs/a.json", "md5": str(id(sums))})
    deps = [{"path": "/home/u/images", "md5": "7"}, {"path": "stages/a.py", "md5": "8"}]
    return {"stages": {"a": {"outs": outs, "deps": deps}, "b": {"deps": outs, "outs": []}}}


def test_comparison_is_per_output_and_of_foreign_inputs() -> None:
    compared = compare_locks(
        lock(x="1", y="2"), lock(x="1", y="3", z="4"), ["a", "b"], Path("/home/u")
    )
    assert [(each.path, each.kind, each.equal) for each in compared] == [
        ("data/x", "output", True),
        ("data/y", "output", False),
        ("data/z", "output", False),
        ("images", "input", True),
    ]


def test_what_cannot_be_rebuilt_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = tracking_uri(line.root)
    with opened_store(uri) as client:
        experiment = open_experiment(client, uri, "latentline", line.root)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=line.root, capture_output=True, text=True, check=True
    ).stdout.strip()
    good = {
        "mlflow.source.name": "pipelines",
        "mlflow.source.git.commit": head,
        "git.code_changed": "false",
    }

    def refusal(tags: dict[str, str], status: str = "FINISHED") -> str:
        run = client.create_run(experiment, tags=tags)
        client.set_terminated(run.info.run_id, status)
        with pytest.raises(ArtifactError) as caught:
            rebuild(line.root, run.info.run_id, print)
        return str(caught.value)

    assert "must be that of a whole line; its line is p1" in refusal(
        {"mlflow.source.name": "stages.first", "mlflow.parentRunId": "p1"}
    )
    assert "it is FAILED" in refusal(good, "FAILED")
    assert "changes that were not committed" in refusal(good | {"git.code_changed": "true"})
    assert "changes that were not committed" in refusal({"mlflow.source.name": "pipelines"})
    gone = "0123456789" * 4
    assert f"commit {gone}" in refusal(good | {"mlflow.source.git.commit": gone})
    assert "must have params.yaml among its artifacts" in refusal(good)
    with pytest.raises(ArtifactError, match="'nobody' must be the id of a line's run"):
        rebuild(line.root, "nobody", print)
    monkeypatch.chdir(line.root / ".work")
    with pytest.raises(ValueError, match=r"holds no dvc\.yaml"):
        project_root()
    monkeypatch.setenv("PATH", str(line.root / "nothing"))
    with pytest.raises(LatentlineError, match="git must be on PATH"):
        rebuild(line.root, "any", print)
