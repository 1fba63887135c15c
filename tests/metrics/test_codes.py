import math

import pytest
import torch

from stages.metrics.base import Figure, Observation
from stages.metrics.codes import CodeUsage
from tests.metrics.examples import PROTOCOL


def figures(*batches: torch.Tensor, num_codes: int) -> dict[str, Figure]:
    metric = CodeUsage(num_codes)
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
