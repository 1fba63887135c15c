"""A promoted line is what MLflow serves, over HTTP and in a batch, whatever stands here by then."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.promoting.champion_model import served_model
from pipelines.promoting.promotion import promote_newest
from pipelines.records.line_record import LineRecord
from stages.core.store import opened_store, tracking_uri
from stages.serving.tables import png_of
from tests.line.repository import Repository, make_repository
from tests.pipelines.trivial_line import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A tiny line, run and recorded as a whole."""
    repository = make_repository(tmp_path / "line")
    repository.dvc("repro")
    repository.commit("ran")
    monkeypatch.setenv("LATENTLINE_TRACKING", "")
    record = LineRecord.open(repository.path, "line", {})
    for stage in repository.lock():
        record.stage_finished(stage, 1.0)
    record.finish("FINISHED")
    return repository


def ask(port: int, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)["predictions"]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def test_the_champion_is_served_by_mlflow(trained: Repository, tmp_path: Path) -> None:
    root, said = trained.path, []
    samples = np.load(root / "data/samples/images.npy")
    decision = promote_newest(
        root, "class_accuracy", alias="champion", model="latentline", dry_run=False, log=said.append
    )
    assert decision.promoted and not any("cannot be served" in line for line in said), said
    uri = tracking_uri(root)
    with opened_store(uri) as client:
        version = client.get_model_version_by_alias("latentline", "champion")
    # Once only, whoever asks again.
    packed = served_model(root, client, client.get_run(decision.newest), "latentline", print)
    assert version.source == f"models:/{packed}"
    # The workspace has moved on: what is served is the champion's.
    trained.change(prior={"width": 32})
    (root / "data/prior/weights.safetensors").unlink()

    port = free_port()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    served = "models:/latentline@champion"
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "-m", served]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*serve, "--env-manager", "local", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(port) or server.poll() is not None)
        records = [{"seed": 0, "index": i} for i in range(12)]
        answer = ask(port, {"dataframe_records": records})
        assert [row["class"] for row in answer] == [str(i % 10) for i in range(12)]
        pictures = [base64.b64decode(row["png"]) for row in answer]
        assert pictures == [png_of(image) for image in samples[:12]]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, {"dataframe_records": [{"class": "eleven", "seed": 1}]})
        told = json.load(refused.value)
        assert refused.value.code == 400
        assert "row 0: class 'eleven' is not one of 0, 1" in told["message"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=60)

    # Not CSV: there MLflow takes the names of these classes for numbers, and refuses them.
    rows = [{"class": "0", "seed": 0, "index": 0}, {"class": "1", "seed": 0, "index": 1}]
    (tmp_path / "table.json").write_text(json.dumps({"dataframe_records": rows}))
    predict = [sys.executable, "-m", "mlflow", "models", "predict", "-m", served]
    options = ["-i", "table.json", "-t", "json", "-o", "answer.json", "--env-manager", "local"]
    subprocess.run([*predict, *options], cwd=tmp_path, env=environment, check=True)
    batch = json.loads((tmp_path / "answer.json").read_text())["predictions"]
    assert [base64.b64decode(row["png"]) for row in batch] == pictures[:2]
