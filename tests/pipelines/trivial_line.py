"""A line of three trivial stages in a repository of its own, and how to find its processes."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

from pipelines.workspace.reproduce import stage_environment

PROJECT = Path(__file__).resolve().parents[2]

MARK = "LATENTLINE_TEST_MARK"

STAGE = """
    import json, os, sys, time
    from pathlib import Path
    from ruamel.yaml import YAML

    name, upstream = sys.argv[1], sys.argv[2:]
    params = YAML(typ="safe").load(Path("params.yaml"))[name]
    print(f"{name} begins", flush=True)
    if "fail_once" in params and not Path(".work/failed").exists():
        Path(".work/failed").touch()
        sys.exit(params["fail_once"])
    if "fail" in params:
        print(f"{name}: {params['fail']}", file=sys.stderr)
        sys.exit(1)
    time.sleep(params.get("sleep", 0))
    read = [Path(f"data/{u}/value.txt").read_text() for u in upstream]
    Path(f"data/{name}").mkdir(parents=True)
    Path(f"data/{name}/value.txt").write_text(f"{params['value']} {sum(map(len, read))}")
    if name == "third":
        Path("data/metrics").mkdir()
        figures = {"length": {"value": 2.5, "unit": "cm", "direction": "higher", "n": 7}}
        Path("data/metrics/figures.json").write_text(json.dumps(figures))
    Path("data/runs").mkdir(exist_ok=True)
    marker = {"stage": name, "run_id": None, "experiment_id": None, "tracking_uri": None,
              "record": f"record-{os.getpid()}",
              "line": os.environ.get("LATENTLINE_LINE")}
    Path(f"data/runs/{name}.json").write_text(json.dumps(marker))
    time.sleep(params.get("linger", 0))
"""

DVC_YAML = """
    stages:
      third:
        cmd: python stage.py third second
        deps: [stage.py, data/second]
        params: [third]
        outs: [data/third, data/metrics, data/runs/third.json]
      first:
        cmd: python stage.py first
        deps: [stage.py]
        params: [first]
        outs: [data/first, data/runs/first.json]
      second:
        cmd: python stage.py second first
        deps: [stage.py, data/first]
        params: [second]
        outs: [data/second, data/runs/second.json]
"""

PARAMS = """
    first: {value: one}
    second: {value: two}
    third: {value: three}
"""

QUIET = {
    "DVC_NO_ANALYTICS": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


class Line:
    """The temporary repository."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def set(self, **sections: str) -> None:
        """Replace sections of params.yaml, each given as a flow mapping."""
        given = {"first": "{value: one}", "second": "{value: two}", "third": "{value: three}"}
        text = "".join(f"{name}: {value}\n" for name, value in (given | sections).items())
        (self.root / "params.yaml").write_text(text)

    def record(self) -> None:
        """Run the line and commit its dvc.lock."""
        for command in (
            [sys.executable, "-m", "dvc", "repro", "--quiet"],
            ["git", "add", "--force", "dvc.lock", "dvc.yaml"],
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "run"],
        ):
            subprocess.run(command, cwd=self.root, check=True, env=stage_environment(QUIET, []))

    def value(self, stage: str) -> str:
        return (self.root / "data" / stage / "value.txt").read_text()


def make_line(root: Path) -> Path:
    """Write the line into a new repository and commit it."""
    root.mkdir(parents=True)
    (root / ".work").mkdir()
    (root / "stage.py").write_text(textwrap.dedent(STAGE))
    (root / "dvc.yaml").write_text(textwrap.dedent(DVC_YAML))
    (root / "params.yaml").write_text(textwrap.dedent(PARAMS).lstrip())
    (root / ".gitignore").write_text("/data/\n/.work/\n/mlflow.db*\n/mlartifacts/\n")
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "line"],
    ):
        subprocess.run(command, cwd=root, check=True, env={**os.environ, **QUIET})
    return root


def living(mark: str) -> list[psutil.Process]:
    """Processes whose environment has LATENTLINE_TEST_MARK=`mark`, zombies apart."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
