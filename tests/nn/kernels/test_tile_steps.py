"""Products of few rows by tiles: those of the layers they stand for, row by row."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.nn import stepping
from stages.nn.kernels.tile_steps import StepFeedForward, StepLinear, can_step_with_tiles
from stages.nn.kernels.tiles import has_tiles
from stages.nn.stepping import StepSettings, with_steps
from stages.nn.transformer import GatedFeedForward, Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS

needs_tiles = pytest.mark.usefixtures("_tiles")

COMPILED = StepSettings("bfloat16", compile=True)
CPU = torch.device("cpu")


def linear(width, out):
    torch.manual_seed(width + out)
    return nn.Linear(width, out, bias=False).bfloat16()


def feed_forward(width):
    torch.manual_seed(width)
    return louder(GatedFeedForward(width)).bfloat16()


def rows(count, width):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count)).bfloat16()


def transformer(width):
    return Transformer(2, CausalTransformerOptions(**{**BLOCKS, "width": width}))


def close(found, expected):
    torch.testing.assert_close(
        found.float(), expected, rtol=0, atol=1e-2 * expected.abs().max().item()
    )


@needs_tiles
@pytest.mark.parametrize("count", [1, 16, 31, 32, 33, 64, 70])
@pytest.mark.parametrize(("width", "out"), [(32, 32), (96, 160), (256, 64)])
def test_a_linear_layer(count, width, out):
    layer, x = linear(width, out), rows(count, width)
    found = StepLinear(layer)(x)
    assert found.dtype == torch.bfloat16
    close(found, x.float() @ layer.weight.detach().float().T)


@needs_tiles
@pytest.mark.parametrize("count", [1, 31, 32, 64, 70])
@pytest.mark.parametrize("width", [32, 96])
def test_a_feed_forward_layer(count, width):
    layer, x = feed_forward(width), rows(count, width)
    found = StepFeedForward(layer.project_in, layer.project_out)(x)
    gate, up = F.linear(x.float(), layer.project_in.weight.detach().float()).chunk(2, dim=-1)
    close(found, F.linear(F.silu(gate) * up, layer.project_out.weight.detach().float()))


@needs_tiles
def test_a_row_does_not_depend_on_the_others_nor_on_threads():
    layers = StepLinear(linear(96, 64)), StepFeedForward(*feed_forward(96).children())
    x, threads = rows(70, 96), torch.get_num_threads()
    try:
        for layer in layers:
            torch.set_num_threads(1)
            together, alone = layer(x), torch.cat([layer(row) for row in x.split(1)])
            torch.set_num_threads(2)
            assert torch.equal(together, alone)
            assert torch.equal(together, layer(x))
    finally:
        torch.set_num_threads(threads)


@needs_tiles
def test_leading_axes_and_inputs_in_float32_are_as_in_the_layer():
    layer, x = linear(32, 64), torch.randn(3, 1, 32)
    found = StepLinear(layer)(x)
    assert found.shape == (3, 1, 64)
    close(found, (x.bfloat16().float() @ layer.weight.detach().float().T))


def test_layers_that_the_kernels_cannot_take_are_told():
    assert can_step_with_tiles(linear(32, 64)) == has_tiles()
    assert not can_step_with_tiles(linear(32, 40))
    assert not can_step_with_tiles(nn.Linear(32, 64, bias=False))
    assert not can_step_with_tiles(nn.Linear(32, 64).bfloat16())


@needs_tiles
def test_compiled_steps_have_them_and_others_do_not(monkeypatch):
    monkeypatch.setattr(stepping, "compiled_stepper", lambda: None)
    kinds = {StepLinear, StepFeedForward}

    def kernels(module, settings):
        return [part for part in with_steps(module, settings, CPU).modules() if type(part) in kinds]

    assert len(kernels(transformer(32), COMPILED)) == 2 * 3
    assert not kernels(transformer(32), StepSettings("bfloat16"))
    assert not kernels(transformer(16), COMPILED)
