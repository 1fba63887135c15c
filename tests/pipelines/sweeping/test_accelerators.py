"""One branch at a time on each accelerator, also across processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.settings.line_config import SweepConfig
from pipelines.sweeping import accelerators
from pipelines.sweeping.accelerators import ANY, one_that_is_free


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "accelerator_folder", lambda: tmp_path)


def test_each_is_held_by_one():
    with one_that_is_free(["0", "1"]) as first, one_that_is_free(["0", "1"]) as second:
        assert first is not None and first.environment == {"CUDA_VISIBLE_DEVICES": "0"}
        assert second is not None and second.names == "1"
        with one_that_is_free(["0", "1"]) as third:
            assert third is None
    with one_that_is_free(["0"]) as again:
        assert again is not None
    assert ANY.environment == {} and ANY.locks == ()


def test_of_several_that_are_not_all_free_none_is_kept():
    with one_that_is_free(["1"]), one_that_is_free(["0,1"]) as both, one_that_is_free(["0"]) as one:
        assert both is None
        assert one is not None
    with one_that_is_free(["0,1"]) as both:
        assert both is not None and len(both.locks) == 2


def test_what_inherits_it_keeps_it():
    """As the stage of a flow that was killed."""
    with one_that_is_free(["0"]) as held:
        assert held is not None
        stage = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held.locks
        )
    with one_that_is_free(["0"]) as meanwhile:
        assert meanwhile is None
    stage.communicate(b"\n")
    with one_that_is_free(["0"]) as after:
        assert after is not None


@pytest.mark.parametrize("wrong", ["", "0,,1", "0 1", "../0;"])
def test_names_are_names(wrong: str):
    with pytest.raises(ValidationError, match="accelerators"):
        SweepConfig(name="mine", accelerators=[wrong])
