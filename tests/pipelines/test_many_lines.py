"""What many lines need is asked for before anything is started."""

import logging
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import many_lines
from pipelines import sweep as sweep_flow
from pipelines.__main__ import main
from pipelines.settings.line_config import SweepConfig
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import Line


@pytest.fixture
def inner(line: Line, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is a folder of a larger repository."""
    shutil.rmtree(line.root / ".git")
    subprocess.run(["git", "init", "--quiet"], cwd=line.root.parent, check=True)
    monkeypatch.chdir(line.root)
    return line.root


@pytest.mark.parametrize("command", ["sweep", "families"])
def test_a_folder_of_a_larger_repository_is_refused_before_a_server_starts(
    inner: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepared = SimpleNamespace(plan=lambda: ["two branches"])
    monkeypatch.setattr(many_lines, "prepare_sweep", lambda config: prepared)
    for name in ("prefect_api", "prefect_api_until_exit"):
        monkeypatch.setattr(many_lines, name, lambda root: pytest.fail("a server was started"))
    assert main([command, "digits"]) == 1
    assert "is line/ of a larger one" in capsys.readouterr().err
    if command == "sweep":
        assert main([command, "digits", "--plan"]) == 0, "a plan needs no clone"


def test_the_flow_refuses_it_too(inner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = SimpleNamespace(root=inner, plan=lambda: pytest.fail("it goes on"))
    monkeypatch.setattr(sweep_flow, "prepare_sweep", lambda config: prepared)
    monkeypatch.setattr(sweep_flow, "get_run_logger", logging.getLogger)
    with pytest.raises(LatentlineError, match="is line/ of a larger one"):
        sweep_flow.sweep.fn(SweepConfig(name="digits"))
