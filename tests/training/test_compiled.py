"""Compiled trainings."""

import pytest

from tests.programs import run_module


@pytest.mark.slow
def test_gradients_are_the_same_every_time(project):
    run_module(project, "tests.training.compiled_gradients")
