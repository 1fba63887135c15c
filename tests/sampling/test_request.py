"""What is asked for on the command line, in the terms of the section."""

import argparse

import pytest

from stages.sampling.request import add_settings, requested_params


@pytest.mark.parametrize(
    ("share", "tries"), [("1", 1), ("0.5", 2), ("0.333", 3), ("0.167", 6), ("0.001", 1000)]
)
def test_the_share_that_is_kept_is_one_of_so_many_tries(project, monkeypatch, share, tries):
    monkeypatch.chdir(project)
    parser = argparse.ArgumentParser()
    add_settings(parser)
    asked = requested_params(parser.parse_args(["--rejection", share])).sampling
    assert (asked.rejection_tries, asked.rejection_threshold) == (tries, 1)
