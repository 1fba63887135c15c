"""Modules run in a process of their own: the checks of shapes that tests put into every function of
`stages` cannot be compiled.
"""

import subprocess
import sys


def run_module(project, *arguments):
    """What `python -m ARGUMENTS` says on its way to a good end; else all it said fails the test."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
