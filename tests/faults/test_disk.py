"""A disk that is full, or may only be read: said by name, nothing half-written, goes on after."""

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.place import Place, mounted
from tests.faults.table import case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("stage", ["train_autoencoder", "encode"])
@case("disk full where a stage keeps its unfinished work", "the disk is full, and what to do")
def test_work_folder_is_full(line: Place, undisturbed: Undisturbed, stage: str, result) -> None:
    line.forget(stage)
    with mounted(line.path / ".work" / stage, "-t", "tmpfs", "-o", "size=12k", "none"):
        assert line.call("dvc", "repro", "--single-item", stage) != 0
        assert "the disk is full" in line.said and "Traceback" not in line.said, line.said
    assert line.call("dvc", "repro") == 0, line.said
    line.require_whole(undisturbed.hashes)
    result(f"{stage}: equal bytes")


@pytest.mark.parametrize("free_kilobytes", [8, 48])
@case("the whole disk of the project full, in encode", "the disk is full, from the stage or DVC")
def test_the_disk_is_full(
    undisturbed: Undisturbed, tmp_path: Path, free_kilobytes: int, result
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "none"), ExitStack() as afterwards:
        place = undisturbed.place.copy(disk / "line")
        afterwards.callback(place.end_all)
        place.aside = tmp_path / "aside"
        place.aside.mkdir()
        place.forget("encode")
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        subprocess.run(
            ["fallocate", "-l", str(free - 1024 * free_kilobytes), str(ballast)], check=True
        )
        assert place.call("dvc", "repro", "--single-item", "encode") != 0
        assert "No space left" in place.said or "disk is full" in place.said, place.said
        ballast.unlink()
        assert place.call("dvc", "repro") == 0, place.said
        place.require_whole(undisturbed.hashes)
    result(f"{free_kilobytes} kB left: equal bytes")


@case("MLflow's disk full", "the stage does not notice; the record is kept and delivered later")
def test_mlflow_disk_is_full(line: Place, undisturbed: Undisturbed, result) -> None:
    store = line.path / "store"
    line.environment |= {
        "LATENTLINE_TRACKING": "on",
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
    }
    line.forget("prepare")
    with mounted(store, "-t", "tmpfs", "-o", "size=200k", "none"):
        assert line.call("dvc", "repro", "--single-item", "prepare") == 0, line.said
        assert "it is kept" in line.said
    line.forget("train_judge")
    assert line.call("dvc", "repro", "--single-item", "train_judge") == 0, line.said
    assert sorted(line.run_states(store / "mlflow.db")) == [
        ("prepare", "FINISHED"),
        ("train_judge", "FINISHED"),
    ]
    shutil.rmtree(store)
    line.require_whole(undisturbed.hashes)
    result("delivered by the next stage, equal bytes")


@case("data may only be read", "named, with what to mend")
def test_read_only_data(line: Place, undisturbed: Undisturbed, result) -> None:
    data = line.path / "data"
    with mounted(data, "--bind", str(data)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(data)], check=True)
        assert line.call("stages.encode") == 1
        assert "may not write or read" in line.said and "Traceback" not in line.said, line.said
    line.forget("encode")
    assert line.call("dvc", "repro") == 0, line.said
    line.require_whole(undisturbed.hashes)
    result("equal bytes")
