"""Every way a stage can end has its exit status and its one message."""

import errno
import json
import os
import re
import signal
from typing import Literal

import pytest

import stages.core.stage
from stages.core.artifacts import new_artifact
from stages.core.errors import DataError, Interrupted
from stages.core.sections import Section
from stages.core.stage import run_stage
from stages.training.checkpoint import write_checkpoint


class Params(Section):
    seed: int
    device: Literal["auto"]


@pytest.fixture
def workspace(tmp_path, monkeypatch, project):
    (tmp_path / "params.yaml").write_text((project / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_status(program, **inputs):
    with pytest.raises(SystemExit) as ended:
        run_stage("toy", Params, program, inputs)
    return ended.value.code


def test_done_leaves_a_marker_and_no_work(workspace):
    def program(params, run):
        assert params.seed == 0
        (run.work / "half.bin").write_bytes(b"half")

    run_stage("toy", Params, program, {})
    marker = json.loads((workspace / "data/runs/toy.json").read_text())
    assert marker["stage"] == "toy"
    assert [p.suffix for p in (workspace / ".work/toy").iterdir()] == [".lock"]


def run_growing(workspace, seed, leave):
    params = workspace / "params.yaml"
    params.write_text(re.sub(r"(?m)^seed: \d+", f"seed: {seed}", params.read_text()))
    seen = []

    def program(params, run):
        seen.extend(sorted(path.name for path in run.kept.iterdir()))
        for name in leave:
            (run.kept / name).write_bytes(b"piece")
        (run.work / "scratch").mkdir()
        (run.work / "tracking.json").write_text("{}")
        if params.seed == 9:
            raise Interrupted("half of it")

    try:
        run_stage("toy", Params, program, lambda params: {}, grows=["seed"])
    except SystemExit as stopped:
        assert stopped.code == 75
    return seen


def test_growing_work_goes_on_from_what_was_kept(workspace):
    assert run_growing(workspace, 1, ["first"]) == []
    [work] = [path for path in (workspace / ".work/toy").iterdir() if path.is_dir()]
    assert [path.name for path in work.iterdir()] == ["kept"]
    assert run_growing(workspace, 2, ["second"]) == ["first"]
    assert run_growing(workspace, 1, []) == ["first", "second"]


def test_what_another_work_had_kept_goes_and_what_was_interrupted_stays(workspace, monkeypatch):
    works = workspace / ".work/toy"
    names = iter(["finished", "interrupted", "last"])
    monkeypatch.setattr(stages.core.stage, "digest_of", lambda code: next(names))
    run_growing(workspace, 1, ["piece"])
    [finished] = [path for path in works.iterdir() if path.is_dir()]
    run_growing(workspace, 9, ["piece"])
    [interrupted] = [path for path in works.iterdir() if path.is_dir() and path != finished]
    run_growing(workspace, 1, ["piece"])
    assert not finished.exists() and (interrupted / "kept/piece").exists()


def test_a_users_mistake_is_one_message(workspace, capsys):
    def program(params, run):
        raise DataError("image.png: must be an image")

    assert exit_status(program) == 1
    assert capsys.readouterr().err == "toy: image.png: must be an image\n"
    assert not (workspace / "data").exists()


def test_a_mistake_in_a_later_section_stops_the_stage_before_it_starts(workspace, capsys):
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("temperature: 1.0", "temperature: -1.0"))
    assert exit_status(lambda params, run: pytest.fail("must not run")) == 1
    assert "sampling.temperature: Input should be greater than" in capsys.readouterr().err


def test_what_the_data_cannot_show_stops_the_stage_that_first_reads_them(workspace, capsys):
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("rejection_tries: 1 ", "rejection_tries: 2 "))
    (workspace / "data").mkdir()
    with new_artifact(workspace / "data/prepared", "prepared", {"class_names": None}):
        pass
    inputs = {"prepared": workspace / "data/prepared"}
    with pytest.raises(SystemExit) as ended:
        run_stage("toy", Params, lambda params, run: pytest.fail("must not run"), inputs)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("toy: sampling.rejection_tries: must be 1 without classes")


@pytest.mark.parametrize(
    ("section", "old", "new", "message"),
    [
        ("head", "kind: categorical", "kind: mixture", "head.components is missing"),
        ("labels", "label_dropout: 0.1", "label_dropout: 0.0", "prior.label_dropout must be above"),
        (
            "num_heads",
            "num_heads: 4",
            "num_heads: 7",
            "prior: width must be a multiple of num_heads; got 96 and 7",
        ),
        ("codes", "num_codes: 64", "num_codes: 5000000000", "must not exceed 4294967296"),
        (
            "order",
            "order: raster               # raster | random_to_raster\n  random_until: 0\n"
            "  raster_from: 0",
            "order: random_to_raster\n  random_until: 100\n  raster_from: 301",
            "prior.raster_from: must not exceed train_prior.steps",
        ),
        ("warmup", "warmup_steps: 20", "warmup_steps: 900", "warmup_steps must be below steps"),
    ],
)
def test_impossible_combinations(workspace, capsys, section, old, new, message):
    path = workspace / "params.yaml"
    text = path.read_text().replace("guidance: 1.0", "guidance: 2.0")
    path.write_text(text.replace(old, new, 1))
    assert exit_status(lambda params, run: None) == 1
    assert message in capsys.readouterr().err


def test_sigterm_is_status_75_and_keeps_the_work(workspace, capsys):
    def program(params, run):
        (run.work / "checkpoint").write_bytes(b"safe")
        os.kill(os.getpid(), signal.SIGTERM)
        run.raise_if_stopped()

    assert exit_status(program) == 75
    assert "run again to go on" in capsys.readouterr().err
    assert list((workspace / ".work/toy").glob("*/checkpoint"))


def test_a_full_disk_is_named(workspace, capsys):
    # /dev/full is a disk without a free byte.
    (workspace / "checkpoint.building.pt").symlink_to("/dev/full")

    def program(params, run):
        write_checkpoint(workspace, {"x": 1})

    assert exit_status(program) == 1
    assert "the disk is full" in capsys.readouterr().err


def test_missing_permission_is_named(workspace, capsys):
    def program(params, run):
        raise PermissionError(errno.EACCES, "Permission denied", "images.npy")

    assert exit_status(program) == 1
    assert "may not write or read (images.npy)" in capsys.readouterr().err


def test_a_missing_input_names_its_stage(workspace, capsys):
    assert exit_status(lambda params, run: None, prepared=workspace / "data/prepared") == 1
    assert "the prepared artifact must be here" in capsys.readouterr().err


def test_our_own_defects_keep_their_traceback(workspace):
    def program(params, run):
        raise KeyError("defect")

    with pytest.raises(KeyError):
        run_stage("toy", Params, program, {})


def test_inputs_and_code_name_the_work(workspace):
    with new_artifact(workspace / "in", "toy input", {}) as folder:
        (folder / "x").write_text("1")
    keys = []

    def program(params, run):
        keys.append(run.work.name)

    run_stage("toy", Params, program, {"toy input": workspace / "in"})
    with new_artifact(workspace / "in", "toy input", {}) as folder:
        (folder / "x").write_text("2")
    run_stage("toy", Params, program, {"toy input": workspace / "in"})
    run_stage("toy", Params, program, {"toy input": workspace / "in"})
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize("edited", ["params.yaml: seed", "in"])
def test_what_is_edited_while_a_stage_runs_is_not_recorded(workspace, capsys, edited):
    """DVC would note the new value beside the outputs of the old one."""
    with new_artifact(workspace / "in", "toy input", {}) as folder:
        (folder / "x").write_text("1")

    def program(params, run):
        (run.work / "kept.bin").write_bytes(b"work")
        if edited == "in":
            with new_artifact(workspace / "in", "toy input", {}) as folder:
                (folder / "x").write_text("2")
            return
        path = workspace / "params.yaml"
        path.write_text(re.sub(r"(?m)^seed: \d+", "seed: 7", path.read_text()))

    with pytest.raises(SystemExit) as ended:
        run_stage("toy", Params, program, {"toy input": workspace / "in"})
    assert ended.value.code == 75
    where = workspace / "in" if edited == "in" else edited
    assert f"edited while it ran: {where};" in capsys.readouterr().err
    assert not (workspace / "data/runs/toy.json").exists()


def test_an_edit_of_another_stages_section_is_none_of_its_business(workspace):
    def program(params, run):
        path = workspace / "params.yaml"
        path.write_text(path.read_text().replace("temperature: 1.0", "temperature: 0.9"))

    run_stage("toy", Params, program, {})
    assert (workspace / "data/runs/toy.json").exists()
