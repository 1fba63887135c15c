"""What must hold of compiled steps; `python -m tests.nn.compiled_laws NAME` tries one."""

import contextlib
import sys
from unittest import mock

import torch

from stages.bottlenecks.base import LatentSpec
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.nn import compiled_step
from stages.nn.attention import READ_AT_ONCE
from stages.nn.completion import KnownLatents
from stages.nn.positions import RotaryPositions
from stages.nn.stepping import StepSettings, with_steps
from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.depth_transformer import DepthTransformerOptions, DepthTransformerPrior
from stages.priors.transformer import TransformerOptions, TransformerPrior
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS, TRANSFORMER

__all__ = ["LAWS", "make_transformer"]

WIDTH, HEADS = 16, 2
CODES, CLASSES = 7, 3
COMPILED = StepSettings(compile=True)


def make_transformer():
    torch.manual_seed(0)
    return louder(Transformer(2, CausalTransformerOptions(**{**BLOCKS, "width": WIDTH})))


def each_attention():
    """The kernel's, and PyTorch's where there is none."""
    yield "kernel"
    with mock.patch.object(compiled_step, "can_attend_to_cache", lambda keys: False):
        yield "fused"


def stepped(transformer, inputs, rotations, settings):
    walker = with_steps(transformer, settings, torch.device("cpu"))
    cache = walker.new_cache(inputs[:, 0], inputs.shape[1])
    with torch.inference_mode():
        steps = [walker.step(each, cache, rotations) for each in inputs.unbind(dim=1)]
    return torch.stack(steps, dim=1)


@contextlib.contextmanager
def one_graph():
    torch._dynamo.utils.counters.clear()
    yield
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def steps_equal_those_that_are_not_compiled_and_the_full_forward():
    tokens = READ_AT_ONCE + 5
    transformer = make_transformer()
    rotations = RotaryPositions(((3, tokens // 3),), WIDTH, WIDTH // HEADS).rotations(None)
    for _ in each_attention():
        for batch in (1, 3):
            inputs = torch.randn(batch, tokens, WIDTH)
            for turns in (None, rotations):
                compiled = stepped(transformer, inputs, turns, COMPILED)
                plain = stepped(transformer, inputs, turns, StepSettings())
                whole = transformer(inputs, turns)
                torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(compiled, whole, rtol=1e-4, atol=1e-5)


def steps_in_bfloat16_equal_those_that_are_not_compiled():
    transformer = make_transformer()
    inputs = torch.randn(3, READ_AT_ONCE + 5, WIDTH)
    for _ in each_attention():
        compiled = stepped(transformer, inputs, None, StepSettings("bfloat16", compile=True))
        plain = stepped(transformer, inputs, None, StepSettings("bfloat16"))
        torch.testing.assert_close(compiled, plain, rtol=5e-2, atol=5e-2)


def one_compilation_does_for_all_copies_of_a_prior(settings=COMPILED):
    head = CategoricalOptions(kind="categorical", tied=False)
    options = TransformerOptions(**{**TRANSFORMER, "width": WIDTH})
    prior = louder(TransformerPrior(options, head, LatentSpec("codes", 2, 3, CODES), CLASSES))
    labels, uniforms = torch.tensor([0, 2]), torch.rand(2, *prior.noise_shape)
    for _ in each_attention():
        with one_graph():
            for _ in range(3):
                walker = with_steps(prior, settings, torch.device("cpu"))
                walker.sample(labels, uniforms, SamplerSettings())


def one_compilation_does_for_all_copies_in_bfloat16():
    one_compilation_does_for_all_copies_of_a_prior(StepSettings("bfloat16", compile=True))


def one_compilation_does_for_all_positions():
    transformer = make_transformer()
    for _ in each_attention():
        with one_graph():
            stepped(transformer, torch.randn(2, 3 * READ_AT_ONCE - 1, WIDTH), None, COMPILED)


def probabilities_are_those_of_the_full_forward_guided_or_not():
    """With every cell given, a walk weighs the cells as `log_prob` does."""
    head = CategoricalOptions(kind="categorical", tied=False)
    spec = LatentSpec("codes", 3, 7, CODES)
    options = TransformerOptions(**{**TRANSFORMER, "positions": "rotary"})
    stacked = LatentSpec("codes", 1, 12, CODES, parts=((2, 3), (2, 3)))
    by_depth = {**BLOCKS, "kind": "depth_transformer", "layers": 1, "depth_layers": 1}
    torch.manual_seed(0)
    for prior in (
        louder(TransformerPrior(options, head, spec, CLASSES)),
        louder(DepthTransformerPrior(DepthTransformerOptions(**by_depth), head, stacked, CLASSES)),
    ):
        shape = (4, prior.spec.grid_height, prior.spec.grid_width)
        known = KnownLatents(torch.randint(CODES, shape), torch.ones(shape, dtype=torch.bool))
        labels, uniforms = torch.tensor([0, 2, 1, 2]), torch.rand(4, *prior.noise_shape)
        with torch.inference_mode():
            expected = prior.log_prob(known.latents, labels)
            walker = with_steps(prior, COMPILED, torch.device("cpu"))
            for guidance in (1.0, 2.0):
                settings = SamplerSettings(guidance=guidance)
                weight = walker.complete(labels, uniforms, settings, known).log_weight
                torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)


LAWS = {
    law.__name__: law
    for law in (
        steps_equal_those_that_are_not_compiled_and_the_full_forward,
        steps_in_bfloat16_equal_those_that_are_not_compiled,
        one_compilation_does_for_all_copies_of_a_prior,
        one_compilation_does_for_all_copies_in_bfloat16,
        one_compilation_does_for_all_positions,
        probabilities_are_those_of_the_full_forward_guided_or_not,
    )
}

if __name__ == "__main__":
    LAWS[sys.argv[1]]()
