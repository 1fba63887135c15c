"""What people do while the line runs: parameters edited, git left dirty or detached."""

import signal
import sqlite3

import psutil
import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.place import PATIENCE, Place
from tests.faults.table import case
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@case("a stage's section of params.yaml edited while it runs", "exit status 75, not recorded")
def test_params_edited_in_a_stage(line: Place, undisturbed: Undisturbed, result) -> None:
    stage = "sample"
    line.forget(stage)
    before = (line.path / "params.yaml").read_text()
    half = int(0.5 * undisturbed.took[f"stages.{stage}"]["events"])
    # It stands still in the middle while somebody edits.
    order = {"victim": f"stages.{stage}", "event": half, "signal": signal.SIGSTOP}
    process = line.start("dvc", "repro", "--single-item", stage, fault=order)
    wait_until(
        lambda: any(each.status() == psutil.STATUS_STOPPED for each in line.living()), PATIENCE
    )
    line.change(sampling={"temperature": 0.5})
    for each in line.living():
        each.send_signal(signal.SIGCONT)
    assert process.wait(timeout=3000) != 0, line.said
    assert "edited while it ran: params.yaml: sampling" in line.said, line.said
    (line.path / "params.yaml").write_text(before)
    assert line.call("dvc", "repro") == 0, line.said
    line.require_whole(undisturbed.hashes)
    result("DVC took nothing for what it was not; equal bytes")


@case("params.yaml edited while a flow runs", "the flow ends, in one message")
def test_params_edited_in_a_flow(
    trivial: Place, undisturbed_trivial: Undisturbed, api_url: str, result
) -> None:
    trivial.environment |= {"PREFECT_API_URL": api_url, "LATENTLINE_TRACKING": "on"}
    path = trivial.path / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("{value: one}", "{value: one, sleep: 3}"))
    process = trivial.start("pipelines", "run")
    wait_until(lambda: "first begins" in trivial.said or process.poll() is not None, PATIENCE)
    path.write_text(path.read_text().replace("value: three", "value: drei"))
    assert process.wait(timeout=3000) == 1
    assert "params.yaml was edited while the line ran" in trivial.said, trivial.said
    assert "Traceback" not in trivial.said
    path.write_text(before)
    assert trivial.call("pipelines", "run") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    assert sorted(status for _, status in trivial.run_states()) == ["FAILED", "FINISHED"]
    result("equal bytes")


@case("git detached and with changes that are not committed", "runs, and the record says so")
def test_git_dirty_and_detached(
    trivial: Place, undisturbed_trivial: Undisturbed, api_url: str, result
) -> None:
    trivial.environment |= {"PREFECT_API_URL": api_url, "LATENTLINE_TRACKING": "on"}
    trivial.git("checkout", "-q", "--detach")
    (trivial.path / "dirty.py").write_text("x = 1\n")
    assert trivial.call("pipelines", "run") == 0, trivial.said
    trivial.require_whole(undisturbed_trivial.hashes)
    with sqlite3.connect(trivial.path / "mlflow.db") as store:
        tags = dict(store.execute("select key, value from tags"))
    assert tags["git.code_changed"] == "true"
    assert tags["mlflow.source.git.commit"] == trivial.git("rev-parse", "HEAD").strip()
    assert [status for _, status in trivial.run_states()] == ["FINISHED"]
    result("equal bytes")
