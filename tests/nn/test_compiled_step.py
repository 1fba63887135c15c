"""A compiled step equals the step as it stands, within rounding; without a compiler it says so."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.nn.stepping import StepSettings, with_steps
from tests.nn.compiled_laws import LAWS, make_transformer
from tests.programs import run_module


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_law(law, project):
    run_module(project, "tests.nn.compiled_laws", law)


def test_without_a_compiler_it_says_so(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_found():
        raise InvalidCxxCompiler()

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    transformer = make_transformer()
    with pytest.raises(ParamsError, match=r"sampling\.compile: needs a C\+\+ compiler"):
        with_steps(transformer, StepSettings(compile=True), torch.device("cpu"))
    assert transformer.stepper is None
