"""Images drawn by graphs are those drawn kernel by kernel."""

import dataclasses

import numpy as np
import pytest
import torch

from stages.core.sections import validate
from stages.nn.cuda_graph import Replayed
from stages.sampling.draw import GROUP, Sampler
from stages.sampling.options import SamplingOptions
from tests.gpu.compiled_sampling import as_graph, decode
from tests.gpu.the_gpu import gpu, needs_gpu
from tests.priors.test_contract import CASES, build
from tests.programs import run_module
from tests.sampling.test_draw import OPTIONS

pytestmark = needs_gpu


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "stored"), CASES)
def test_every_prior(kind, stored, precision):
    device = gpu()
    prior = build(kind, stored).to(device)
    options = validate(
        SamplingOptions, OPTIONS | {"guidance": 1.0, "precision": precision}, source="test"
    )
    by_graph = Sampler(prior, decode, options, device)
    plain = Sampler(prior, decode, options, device)
    plain._walk = plain._sample
    one, two = (sampler.draw(0, 3 * GROUP) for sampler in (by_graph, plain))
    for name, values in dataclasses.asdict(one).items():
        np.testing.assert_array_equal(values, getattr(two, name), err_msg=name)
    assert as_graph(by_graph)


def test_compiled_steps(project):
    run_module(project, "tests.gpu.compiled_sampling")


def test_the_kernel_of_decode_attention(project):
    plain = ("pytest", "-o", "addopts=-q --import-mode=importlib", "-p", "no:cacheprovider")
    assert "skipped" not in run_module(project, *plain, "tests/nn/kernels/test_decode_attention.py")


def test_results_are_not_overwritten_and_inputs_are_read_anew():
    double = Replayed(lambda x, none: 2 * x)
    given = [torch.full((3,), float(i), device=gpu()) for i in range(5)]
    found = [double(one, None) for one in given]
    assert all(torch.equal(two, 2 * one) for one, two in zip(given, found, strict=True))
    assert [graph is not None for graph in double._graphs.values()] == [True]


def test_what_cannot_be_recorded_is_called_as_it_is():
    waits = Replayed(lambda x: x * x.sum().item())
    for i in range(4):
        one = torch.full((3,), float(i), device=gpu())
        assert torch.equal(waits(one), one * 3 * i)
    assert list(waits._graphs.values()) == [None]
    after = Replayed(lambda x: x + 1)
    assert all(torch.equal(after(one), one + 1) for _ in range(3))
