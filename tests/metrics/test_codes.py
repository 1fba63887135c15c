import math

import pytest
import torch

from stages.metrics.base import Figure, Observation
from stages.metrics.codes import CodeUsage
from stages.nn.code_grids import GridShapes
from tests.metrics.examples import PROTOCOL


def figures(*batches: torch.Tensor, num_codes: int, parts: GridShapes = ()) -> dict[str, Figure]:
    metric = CodeUsage(num_codes, parts)
    for codes in batches:
        pixels = torch.zeros(len(codes), 1, 2, 3, dtype=torch.uint8)
        nothing = torch.zeros(len(codes))
        metric.update(Observation(pixels, pixels, nothing, nothing, codes=codes))
    return {figure.name: figure for figure in metric.figures(PROTOCOL)}


def test_a_uniform_histogram_amounts_to_all_codes() -> None:
    found = figures(torch.arange(12).reshape(2, 2, 3), num_codes=12)
    assert found["code_perplexity"].value == pytest.approx(12)
    assert found["code_entropy"].value == pytest.approx(math.log2(12))
    assert found["code_usage"].value == 1


def test_a_single_code_amounts_to_one() -> None:
    found = figures(torch.full((3, 2, 4), 5), num_codes=8)
    assert found["code_perplexity"].value == 1
    assert found["code_entropy"].value == 0
    assert found["code_usage"].value == 1 / 8


def test_batches_do_not_matter_and_the_protocol_says_what_was_counted() -> None:
    codes = torch.randint(0, 9, (7, 2, 3), generator=torch.Generator().manual_seed(0))
    whole = figures(codes, num_codes=9)
    assert figures(codes[:3], codes[3:], num_codes=9) == whole
    assert whole["code_usage"].n == 7
    assert whole["code_usage"].protocol == PROTOCOL.also(num_codes=9, counted=42)


def test_equal_numbers_of_two_codebooks_are_two_codes() -> None:
    coarse, fine = torch.full((8, 1, 1), 2), torch.arange(32).view(8, 1, 4) % 4
    rows = torch.cat([coarse, fine], dim=2)
    found = figures(rows[:3], rows[3:], num_codes=4, parts=((1, 1), (2, 2)))
    assert found["code_usage"].value == 5 / 8
    # No bits and two: one in the mean.
    assert found["code_entropy"].value == pytest.approx(1)
    assert found["code_perplexity"].value == pytest.approx(2)
    assert found["code_usage"].protocol == PROTOCOL.also(num_codes=4, counted=40, codebooks=2)
