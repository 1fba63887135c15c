"""One range of seeds, wherever one is given."""

import argparse

import pytest

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.core.seeds import LARGEST_SEED, seed_argument
from stages.params import check


@pytest.mark.parametrize(
    ("preset", "section"),
    [("digits_masked", None), ("digits_masked", "sampling"), ("shapes_beta", "dataset")],
)
def test_every_seed_of_the_parameters_fits_a_column_of_64_bits(project, preset, section):
    chosen = read_yaml(project / f"pipelines/presets/{preset}.yaml")
    raw = read_yaml(project / "params.yaml") | chosen
    place = raw if section is None else raw[section]
    place["seed"] = LARGEST_SEED
    check(raw, source="p")
    for wrong in (LARGEST_SEED + 1, -1):
        place["seed"] = wrong
        with pytest.raises(ParamsError, match="seed: Input should be"):
            check(raw, source="p")


def test_a_command_line_takes_the_same():
    assert [seed_argument(str(seed)) for seed in (0, LARGEST_SEED)] == [0, LARGEST_SEED]
    for wrong in (str(LARGEST_SEED + 1), "-1", "1.5", "", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number from 0 to"):
            seed_argument(wrong)
