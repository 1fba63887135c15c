"""Steps by kernels of our own: those of the transformer they stand for, row by row."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from stages.nn.compiled_step import compiled_stepper
from stages.nn.kernels import tile_steps, vector_steps
from stages.nn.kernels.steps import KernelStepper
from stages.nn.kernels.tile_steps import can_step_with_tiles, tile_stepper
from stages.nn.kernels.tiles import has_tiles
from stages.nn.kernels.vector_steps import can_step_with_vectors, vector_stepper
from stages.nn.positions import RotaryPositions
from stages.nn.rotary import Rotations
from stages.nn.stepping import StepSettings, with_steps
from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.kernels.tile_cases import error, is_the_same_every_time, off
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS

CPU = torch.device("cpu")
TOKENS = 21


@dataclass(frozen=True)
class Way:
    """A kernel, the precision of its steps, and some widths and heads that it can take.

    It is compiled for every number of numbers in a query, which takes seconds.
    """

    name: str
    needs: str
    make: Callable[[Transformer], KernelStepper]
    precision: torch.dtype
    sizes: tuple[tuple[int, int], ...]


TILED = (32, 1), (64, 2), (192, 2), (256, 4)
VECTORED = (32, 1), (128, 4), (96, 2)
WAYS = (
    Way("tiles", "_tiles", tile_stepper, torch.bfloat16, TILED),
    Way("vectors", "_compiler", vector_stepper, torch.float32, VECTORED),
    Way("halved", "_compiler", vector_stepper, torch.bfloat16, VECTORED),
)


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def way(request):
    request.getfixturevalue(request.param.needs)
    return request.param


def transformer(width, heads, *, norm=True):
    torch.manual_seed(width)
    options = {"width": width, "num_heads": heads, "query_key_norm": norm}
    return louder(Transformer(3, CausalTransformerOptions(**{**BLOCKS, **options})))


def turns(width, heads):
    return RotaryPositions(((3, TOKENS // 3),), width, width // heads).rotations(None)


def inputs(rows, width):
    return torch.randn(rows, TOKENS, width, generator=torch.Generator().manual_seed(rows))


def walker_of(module, way):
    walker = copy.deepcopy(module)
    walker.step_precision = way.precision
    walker.stepper = way.make(walker)
    return walker


@torch.inference_mode()
def walk(walker, x, rotations=None):
    """Every hidden state, and the cache behind the last."""
    cache = walker.new_cache(x[:, 0], TOKENS)
    steps = [walker.step(token, cache, rotations) for token in x.unbind(dim=1)]
    return torch.stack(steps, dim=1), cache


def walked(module, way, x, rotations=None):
    return walk(walker_of(module, way), x, rotations)


def worst(found, expected):
    """The difference of the token that is furthest off."""
    return max(map(off, found.flatten(0, 1), expected.flatten(0, 1)))


@pytest.mark.parametrize(
    ("way", "width", "heads"),
    [
        pytest.param(way, *size, id=f"{way.name}-{size[0]}-{size[1]}")
        for way in WAYS
        for size in way.sizes
    ],
    indirect=["way"],
)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_as_near_to_the_whole_forward_as_steps_that_are_not_compiled(
    way, width, heads, norm, turned
):
    module, x = transformer(width, heads, norm=norm), inputs(5, width)
    rotations = turns(width, heads) if turned else None
    with torch.no_grad():
        exact = module(x, rotations)
    precise = way.precision == torch.float32
    plain = module if precise else with_steps(module, StepSettings("bfloat16"), CPU)
    plain, _ = walk(plain, x, rotations)
    found, _ = walked(module, way, x, rotations)
    assert found.dtype == torch.float32
    # In float32 they differ by the order of sums, and neither is the better one.
    assert off(found, exact) < (3 if precise else 1.2) * off(plain, exact) < 0.1
    # No mean hides one token that is wrong.
    assert worst(found, exact) < (4 if precise else 2) * worst(plain, exact)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 16, 31, 32, 33, 64, 70, 205])
def test_any_number_of_rows(way, rows):
    walker, x, rotations = walker_of(transformer(64, 2), way), inputs(rows, 64), turns(64, 2)
    found, _ = walk(walker, x, rotations)
    alone = [walk(walker, row, rotations)[0] for row in x.split(1)]
    assert torch.equal(found, torch.cat(alone))


def test_the_same_on_any_number_of_threads(way):
    module, x, rotations = transformer(256, 8), inputs(37, 256), turns(256, 8)
    assert is_the_same_every_time(lambda: walked(module, way, x, rotations)[:1])


def test_rows_that_are_turned_each_in_its_own_way(way):
    module, x, one = transformer(64, 2), inputs(3, 64), turns(64, 2)
    others = Rotations(one.cosines.flip(1), one.sines.flip(1))
    each = Rotations(
        *(torch.cat(pair) for pair in zip(*(vars(r).values() for r in (one, others)), strict=True))
    )
    found, _ = walked(module, way, x[:2], each)
    assert torch.equal(found[:1], walked(module, way, x[:1], one)[0])
    assert torch.equal(found[1:], walked(module, way, x[1:2], others)[0])
    assert not torch.equal(found[1:], walked(module, way, x[1:2], one)[0])


def test_the_cache_is_that_of_other_steps_and_not_written_behind_the_last(way):
    module, x, rotations = transformer(64, 2), inputs(33, 64), turns(64, 2)
    _, found = walked(module, way, x, rotations)
    _, plain = walk(module, x, rotations)
    allowed = 1e-5 if way.precision == torch.float32 else 0.03
    assert found.length == TOKENS
    for one, other in ((found.keys, plain.keys), (found.values, plain.values)):
        assert one.dtype == way.precision
        assert error(one[:, :, :, :TOKENS], other[:, :, :, :TOKENS]) < allowed
        assert not one[:, :, :, TOKENS:].any()


def test_inputs_stay_as_they_are_and_may_lie_in_any_way(way):
    walker = walker_of(transformer(64, 2), way)

    def stepped(token):
        before, cache = token.clone(), walker.new_cache(token, 1)
        found = walker.step(token, cache)
        assert torch.equal(token, before)
        return found

    token = inputs(3, 64)[:, 0].bfloat16()
    expected = stepped(token.float().contiguous())
    assert torch.equal(stepped(token), expected)
    assert torch.equal(stepped(token.float().T.contiguous().T), expected)


def test_later_changes_of_matrices_are_not_seen(way):
    module, x = transformer(32, 1), inputs(2, 32)
    walker = walker_of(module, way)
    before = walker.step(x[:, 0], walker.new_cache(x[:, 0], 1))
    with torch.no_grad():
        for block in walker.blocks:
            block.attention.project_in.weight.zero_()
            block.feed_forward.project_in.weight.zero_()
    assert torch.equal(before, walker.step(x[:, 0], walker.new_cache(x[:, 0], 1)))


def test_several_walk_at_once(way):
    walker, rotations = walker_of(transformer(64, 2), way), turns(64, 2)
    walks = [inputs(rows, 64) for rows in (1, 40, 33, 7)]
    expected = [walk(walker, x, rotations)[0] for x in walks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: walk(walker, x, rotations)[0], walks * 4))
    assert all(torch.equal(*pair) for pair in zip(found, expected * 4, strict=True))


def sized(width, heads, precision):
    module = transformer(width, heads)
    module.step_precision = precision
    return module


def test_transformers_that_tiles_cannot_take_are_told(monkeypatch):
    def can(width, heads, precision=torch.bfloat16):
        return can_step_with_tiles(sized(width, heads, precision))

    assert can(64, 2) == has_tiles()
    monkeypatch.setattr(tile_steps, "has_tiles", lambda: True)
    assert can(64, 2)
    assert not can(64, 4)
    assert not can(64, 2, torch.float32)
    monkeypatch.setattr(tile_steps, "has_tiles", lambda: False)
    assert not can(64, 2)


def test_transformers_that_vectors_should_not_take_are_told(monkeypatch):
    def can(width, heads, precision=torch.float32):
        return can_step_with_vectors(sized(width, heads, precision))

    def multiplies_in(dtype):
        monkeypatch.setattr(vector_steps, "resolve_precision", lambda *_: dtype)

    monkeypatch.setattr(vector_steps, "can_compile", lambda: True)
    multiplies_in(torch.float32)
    assert can(64, 2)
    assert can(64, 4)
    assert can(64, 2, torch.bfloat16)
    assert not can(64, 8)
    assert not can(48, 1)
    multiplies_in(torch.bfloat16)
    assert can(64, 2)
    assert not can(64, 2, torch.bfloat16)
    monkeypatch.setattr(vector_steps, "can_compile", lambda: False)
    assert not can(64, 2)


@pytest.mark.usefixtures("_compiler")
def test_steps_to_be_compiled_are_a_kernel_s_where_one_can_take_them():
    def stepper(width, heads, settings):
        return with_steps(transformer(width, heads), settings, CPU).stepper

    by_pytorch = compiled_stepper(transformer(64, 8)).func
    for precision in ("float32", "auto"):
        assert isinstance(stepper(64, 2, StepSettings(precision, compile=True)), KernelStepper)
        assert stepper(64, 8, StepSettings(precision, compile=True)).func is by_pytorch
    assert stepper(64, 2, StepSettings("bfloat16")) is None
