"""Checking params.yaml is cheap: every stage and every flow does it before anything else."""

import subprocess
import sys

from tests.architecture.imports import PROJECT

PROGRAM = """
import sys
from pathlib import Path
from stages.core.sections import read_yaml
from stages.params import check

defaults = read_yaml(Path("params.yaml"))
for preset in (None, *Path("pipelines/presets").glob("*.yaml")):
    check(defaults | (read_yaml(preset) if preset else {}), source=str(preset))
print(*sys.modules)
"""

COSTLY = {"lightning_fabric", "matplotlib", "mlflow", "sklearn", "torchvision"}
"""Each takes from half a second to several to import."""


def test_no_preset_needs_a_library_to_be_checked_that_only_its_stages_need() -> None:
    command = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    assert not COSTLY & set(found.stdout.split())
