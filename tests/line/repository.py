"""A copy of the project with a line small enough to run in seconds, in a repository of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.architecture.imports import PROJECT

COPIED = ("stages", "pipelines", "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", "data")

STAGES = [
    "prepare",
    "train_judge",
    "train_autoencoder",
    "encode",
    "train_prior",
    "sample",
    "evaluate",
]

PATIENCE = 1500.0
"""Seconds; a machine may be busy with other things."""

TINY: dict[str, dict[str, Any]] = {
    "judge": {"width": 8},
    "train_judge": {"steps": 30, "validate_every": 30, "warmup_steps": 2},
    "backbone": {"widths": [16], "blocks": 1},
    "bottleneck": {"num_codes": 16, "dim": 4, "kmeans_iterations": 2},
    "train_autoencoder": {"steps": 40, "validate_every": 20, "warmup_steps": 2},
    "prior": {"layers": 1, "width": 16, "num_heads": 2},
    "train_prior": {"steps": 40, "validate_every": 20, "warmup_steps": 2},
    "sampling": {"count": 20, "batch_size": 10},
    "evaluate": {"neighbour_queries": 10},
}


class Repository:
    """A project folder under git and DVC."""

    def __init__(self, path: Path, environment: dict[str, str] | None = None) -> None:
        self.path = path
        binaries = str(Path(sys.executable).parent)
        self.environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command here; its output, standard error included."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        if check and done.returncode:
            raise AssertionError(f"{command} exited with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def dvc(self, *arguments: str, check: bool = True) -> str:
        """Run DVC here."""
        return self.run(sys.executable, "-m", "dvc", *arguments, check=check)

    def git(self, *arguments: str) -> str:
        """Run git here, as nobody in particular."""
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)

    def commit(self, message: str) -> None:
        """Commit all there is."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def change(self, **sections: dict[str, Any]) -> None:
        """Change values of params.yaml, section by section."""
        path = self.path / "params.yaml"
        yaml = YAML()
        params = yaml.load(path.read_text())
        for name, values in sections.items():
            params[name].update(values)
        with path.open("w") as file:
            yaml.dump(params, file)

    def lock(self) -> dict[str, Any]:
        """The stages of dvc.lock."""
        return YAML(typ="safe").load((self.path / "dvc.lock").read_text())["stages"]

    def hashes(self) -> dict[str, str]:
        """md5 of every output that others depend on or people look at."""
        return {
            out["path"]: out["md5"]
            for stage in self.lock().values()
            for out in stage["outs"]
            if not out["path"].startswith("data/runs/")
        }


def make_repository(path: Path, **kwargs: Any) -> Repository:
    """Copy the project's own files, make the line tiny, commit."""
    path.mkdir(parents=True)
    for name in COPIED:
        source = PROJECT / name
        if name == "data":
            (path / "data").mkdir()
            shutil.copy(source / "README.md", path / "data")
        elif source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, path / name)
    repository = Repository(path, **kwargs)
    repository.change(**TINY)
    repository.git("init", "-q", "-b", "main")
    repository.dvc("init", "-q")
    shutil.copy(PROJECT / ".dvc" / "config", path / ".dvc" / "config")
    repository.commit("line")
    return repository


def ran(output: str) -> list[str]:
    """Stages that a `dvc repro` really ran, by its own words."""
    return [
        line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")
    ]
