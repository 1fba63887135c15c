"""Copies of the committed project to work in, with DVC caches of their own that begin empty."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from pipelines.workspace.runner import end_session, start_session
from stages.core.sections import read_yaml

__all__ = ["Copy", "make_copy", "with_ten_stages"]

PROJECT = Path(__file__).resolve().parents[2]
SERVERS = "LATENTLINE_BENCHMARK_SERVERS"
"""Process ids of the servers that are up, separated by commas."""


@dataclass(frozen=True)
class Copy:
    """A clone."""

    root: Path

    def run(self, *arguments: str, tracked: bool = True) -> str:
        """Run `python -m ARGUMENTS` in it; returns its output.

        Raises:
            RuntimeError: If it ends badly; with its last lines.
        """
        binaries = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "LATENTLINE_TRACKING": "on" if tracked else "off",
        }
        # Not by `run_command`: it looks for the end some times a second, and this is timed.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            process = start_session(
                [sys.executable, "-m", *arguments],
                cwd=self.root,
                env=environment,
                output=said.fileno(),
            )
            try:
                status = process.wait()
            except BaseException:
                # A benchmark that is stopped leaves nothing at work behind it.
                end_session(process, grace=10)
                raise
            said.seek(0)
            output = said.read()
        if status != 0:
            last = "\n".join(output.splitlines()[-20:])
            raise RuntimeError(f"{' '.join(arguments)}: exit status {status}:\n{last}")
        return output

    def server_seconds(self) -> float:
        """Processor seconds of the servers and their processes until now."""
        seconds = 0.0
        for pid in filter(None, os.environ.get(SERVERS, "").split(",")):
            server = psutil.Process(int(pid))
            for process in (server, *server.children(recursive=True)):
                used = process.cpu_times()
                seconds += used.user + used.system
        return seconds


def make_copy(root: Path, steps: float) -> Copy:
    """Clone the project, trainings `steps` times as long as params.yaml has them."""
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(root)], check=True)
    path, yaml = root / "params.yaml", YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for section in ("train_judge", "train_autoencoder", "train_prior"):
        number = max(1, round(params[section]["steps"] * steps))
        params[section]["steps"] = number
        params[section]["warmup_steps"] = min(params[section]["warmup_steps"], number - 1)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    return Copy(root)


def with_ten_stages(copy: Copy) -> None:
    """Add trivial stages behind the last until there are ten."""
    path, yaml = copy.root / "dvc.yaml", YAML()
    described = yaml.load(path.read_text(encoding="utf-8"))
    for number in range(len(described["stages"]), 10):
        described["stages"][f"more_{number}"] = {
            "cmd": f"mkdir -p data/more && echo {number} > data/more/{number}",
            "deps": ["data/metrics"],
            "outs": [f"data/more/{number}"],
        }
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(described, file)
    assert len(read_yaml(path)["stages"]) == 10
