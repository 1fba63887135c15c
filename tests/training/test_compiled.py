"""Compiled trainings, each in a process of its own: checks of shapes cannot be compiled."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_gradients_are_the_same_every_time(project):
    command = [sys.executable, "-m", "tests.training.compiled_gradients"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
