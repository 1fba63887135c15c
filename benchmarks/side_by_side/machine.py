"""What was run, where and when: it stands beside every result."""

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.side_by_side.peers import PEERS, versions
from stages.core.provenance import git_tags

__all__ = ["describe_run"]


def describe_run(
    command: str, settings: dict[str, object], packages: Sequence[str] = PEERS
) -> dict[str, object]:
    """Commit, machine and versions; asked at the start, since a commit may follow meanwhile.

    Args:
        command: That runs it again.
        settings: Of this run.
        packages: Distributions whose versions matter; those that are missing are left out.
    """
    tags = git_tags()
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": tags.get("mlflow.source.git.commit", "unknown"),
        "uncommitted_changes": tags.get("git.dirty", "unknown"),
        "settings": settings,
        "processor": _processor_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "others_running_at_the_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": versions(packages),
    }


def _processor_name() -> str:
    """As the system calls it."""
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
