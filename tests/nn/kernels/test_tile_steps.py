"""Steps by tiles: those of the transformer they stand for, row by row."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from stages.nn.compiled_step import compiled_stepper
from stages.nn.kernels import tile_steps
from stages.nn.kernels.tile_steps import TileStepper, can_step_with_tiles
from stages.nn.kernels.tiles import has_tiles
from stages.nn.positions import RotaryPositions
from stages.nn.rotary import Rotations
from stages.nn.stepping import StepSettings, with_steps
from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.kernels.tile_cases import by_tiles, error, is_the_same_every_time, off
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS

PLAIN, TILES = StepSettings("bfloat16"), StepSettings("bfloat16", compile=True)
TOKENS = 21
SIZES = [(32, 1), (64, 2), (192, 2), (256, 4)]
"""Widths and heads; queries of 32, 64 and 96 numbers."""


def transformer(width, heads, *, norm=True):
    torch.manual_seed(width)
    options = {"width": width, "num_heads": heads, "query_key_norm": norm}
    return louder(Transformer(3, CausalTransformerOptions(**{**BLOCKS, **options})))


def turns(width, heads):
    return RotaryPositions(((3, TOKENS // 3),), width, width // heads).rotations(None)


def inputs(rows, width):
    return torch.randn(rows, TOKENS, width, generator=torch.Generator().manual_seed(rows))


@torch.inference_mode()
def walked(module, settings, x, rotations=None):
    """Every hidden state, and the cache behind the last."""
    walker = with_steps(module, settings, torch.device("cpu"))
    cache = walker.new_cache(x[:, 0], TOKENS)
    steps = [walker.step(token, cache, rotations) for token in x.unbind(dim=1)]
    return torch.stack(steps, dim=1), cache


def worst(found, expected):
    """The same of the token that is furthest off."""
    return max(map(off, found.flatten(0, 1), expected.flatten(0, 1)))


@by_tiles
@pytest.mark.parametrize(("width", "heads"), SIZES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_as_near_to_the_whole_forward_as_steps_that_are_not_compiled(width, heads, norm, turned):
    module, x = transformer(width, heads, norm=norm), inputs(5, width)
    rotations = turns(width, heads) if turned else None
    with torch.no_grad():
        exact = module(x, rotations)
    plain, _ = walked(module, PLAIN, x, rotations)
    found, _ = walked(module, TILES, x, rotations)
    assert found.dtype == torch.float32
    assert off(found, exact) < 1.2 * off(plain, exact) < 0.1
    # No mean hides one token that is wrong.
    assert worst(found, exact) < 2 * worst(plain, exact)


@by_tiles
@pytest.mark.parametrize("rows", [1, 16, 31, 32, 33, 64, 70])
def test_any_number_of_rows(rows):
    module, x, rotations = transformer(64, 2), inputs(rows, 64), turns(64, 2)
    found, _ = walked(module, TILES, x, rotations)
    alone = [walked(module, TILES, row, rotations)[0] for row in x.split(1)]
    assert torch.equal(found, torch.cat(alone))


@by_tiles
def test_the_same_on_any_number_of_threads():
    module, x, rotations = transformer(192, 2), inputs(37, 192), turns(192, 2)
    assert is_the_same_every_time(lambda: walked(module, TILES, x, rotations)[:1])


@by_tiles
def test_rows_that_are_turned_each_in_its_own_way():
    module, x, one = transformer(64, 2), inputs(3, 64), turns(64, 2)
    others = Rotations(one.cosines.flip(1), one.sines.flip(1))
    each = Rotations(
        *(torch.cat(pair) for pair in zip(*(vars(r).values() for r in (one, others)), strict=True))
    )
    found, _ = walked(module, TILES, x[:2], each)
    assert torch.equal(found[:1], walked(module, TILES, x[:1], one)[0])
    assert torch.equal(found[1:], walked(module, TILES, x[1:2], others)[0])
    assert not torch.equal(found[1:], walked(module, TILES, x[1:2], one)[0])


@by_tiles
def test_the_cache_is_that_of_other_steps_and_not_written_behind_the_last():
    module, x, rotations = transformer(64, 2), inputs(33, 64), turns(64, 2)
    _, plain = walked(module, PLAIN, x, rotations)
    _, found = walked(module, TILES, x, rotations)
    assert found.length == TOKENS
    for one, other in ((found.keys, plain.keys), (found.values, plain.values)):
        assert one.dtype == torch.bfloat16
        assert error(one, other) < 0.03
        assert not one[:, :, :, TOKENS:].any()


@by_tiles
def test_inputs_stay_as_they_are_and_may_lie_in_any_way():
    module = transformer(64, 2)
    walker = with_steps(module, TILES, torch.device("cpu"))

    def stepped(token):
        before, cache = token.clone(), walker.new_cache(token, 1)
        found = walker.step(token, cache)
        assert torch.equal(token, before)
        return found

    token = inputs(3, 64)[:, 0].bfloat16()
    expected = stepped(token.float().contiguous())
    assert torch.equal(stepped(token), expected)
    assert torch.equal(stepped(token.float().T.contiguous().T), expected)


@by_tiles
def test_later_changes_of_the_module_are_not_seen():
    module, x = transformer(32, 1), inputs(2, 32)
    walker = with_steps(module, TILES, torch.device("cpu"))
    before = walker.step(x[:, 0], walker.new_cache(x[:, 0], 1))
    with torch.no_grad():
        for block in module.blocks:
            block.attention.project_in.weight.zero_()
            block.feed_forward.project_in.weight.zero_()
    assert torch.equal(before, walker.step(x[:, 0], walker.new_cache(x[:, 0], 1)))


@by_tiles
def test_several_walk_at_once():
    module, rotations = transformer(64, 2), turns(64, 2)
    walks = [inputs(rows, 64) for rows in (1, 40, 33, 7)]
    expected = [walked(module, TILES, x, rotations)[0] for x in walks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: walked(module, TILES, x, rotations)[0], walks * 4))
    assert all(torch.equal(*pair) for pair in zip(found, expected * 4, strict=True))


def test_transformers_that_the_kernel_cannot_take_are_told(monkeypatch):
    def can(width, heads, precision=torch.bfloat16):
        module = transformer(width, heads)
        module.step_precision = precision
        return can_step_with_tiles(module)

    assert can(64, 2) == has_tiles()
    monkeypatch.setattr(tile_steps, "has_tiles", lambda: True)
    assert can(64, 2)
    assert not can(64, 4)
    assert not can(64, 2, torch.float32)
    monkeypatch.setattr(tile_steps, "has_tiles", lambda: False)
    assert not can(64, 2)


@by_tiles
def test_steps_to_be_compiled_are_the_kernel_s_where_it_can_take_them():
    def stepper(width, heads, settings):
        return with_steps(transformer(width, heads), settings, torch.device("cpu")).stepper

    assert isinstance(stepper(64, 2, TILES), TileStepper)
    assert stepper(64, 2, PLAIN) is None
    for others in (stepper(64, 4, TILES), stepper(64, 2, StepSettings(compile=True))):
        assert others.func is compiled_stepper(transformer(64, 2)).func
