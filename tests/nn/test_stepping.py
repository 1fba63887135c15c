"""Copies made for walking: steps near those of the module, which notices nothing."""

import threading

import pytest
import torch

from stages.bottlenecks.base import LatentSpec
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.nn.completion import KnownLatents
from stages.nn.kernels import packed_linear
from stages.nn.kernels.packed_linear import PackedLinear, can_pack
from stages.nn.stepping import StepSettings, with_steps
from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.transformer import TransformerOptions, TransformerPrior
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS, TRANSFORMER

CODES, CLASSES = 7, 3
BFLOAT16 = StepSettings(precision="bfloat16")
CPU = torch.device("cpu")


def make_prior():
    torch.manual_seed(0)
    head = CategoricalOptions(kind="categorical", tied=False)
    spec = LatentSpec("codes", 3, 5, CODES)
    return louder(TransformerPrior(TransformerOptions(**TRANSFORMER), head, spec, CLASSES))


def test_steps_are_near_those_in_float32_and_half_as_large():
    torch.manual_seed(0)
    transformer = louder(Transformer(2, CausalTransformerOptions(**BLOCKS)))
    twin = with_steps(transformer, BFLOAT16, CPU)
    inputs = torch.randn(4, 9, transformer.norm.weight.numel())
    cache = twin.new_cache(inputs[:, 0], 9)
    assert cache.keys.dtype == cache.values.dtype == torch.bfloat16
    with torch.inference_mode():
        hidden = torch.stack([twin.step(each, cache) for each in inputs.unbind(1)], dim=1)
        expected = transformer(inputs)
    assert hidden.dtype == torch.float32
    error = (hidden - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert 1e-5 < error < 2e-2


def test_a_copy_has_all_other_tensors_in_common_and_the_module_keeps_its_own():
    prior = make_prior()
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    twin = with_steps(prior, BFLOAT16, CPU)
    own, others = dict(prior.named_parameters()), dict(twin.named_parameters())
    shared = {name for name, each in others.items() if each.dtype == torch.float32}
    assert all(others[name] is own[name] for name in shared)
    rounded = set(own) - shared
    assert rounded
    assert all(name.startswith("transformer.") and "project" in name for name in rounded)
    assert prior.transformer.step_precision == torch.float32
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_where_nothing_changes_nothing_is_copied():
    module, prior = torch.nn.Linear(2, 2), make_prior()
    assert with_steps(module, BFLOAT16, CPU) is module
    assert with_steps(prior, StepSettings(), CPU) is prior


def test_packed_layers_give_the_same_bits(monkeypatch):
    if not can_pack(torch.nn.Linear(2, 2, bias=False).bfloat16()):
        pytest.skip("no bfloat16 in oneDNN on this machine")
    prior = make_prior()
    arranged = with_steps(prior, BFLOAT16, CPU)
    layers = [each for each in arranged.modules() if isinstance(each, PackedLinear)]
    assert len(layers) == 4 * len(prior.transformer.blocks)
    monkeypatch.setattr(packed_linear, "can_pack", lambda linear: False)
    as_stored = with_steps(prior, BFLOAT16, CPU)
    assert not [each for each in as_stored.modules() if isinstance(each, PackedLinear)]
    labels, uniforms = torch.arange(64) % CLASSES, torch.rand(64, *prior.noise_shape)
    drawn = [each.sample(labels, uniforms, SamplerSettings()) for each in (arranged, as_stored)]
    assert torch.equal(*drawn)
    rows = torch.randn(5, prior.transformer.norm.weight.numel())
    mine, stored = (each.transformer.blocks[0].attention for each in (arranged, as_stored))
    assert torch.equal(mine.project_in(rows), stored.project_in(rows.bfloat16()))


def test_probabilities_are_near_those_of_the_full_forward():
    """With every cell given, a walk weighs the cells as `log_prob` does."""
    prior = make_prior()
    known = KnownLatents(torch.randint(CODES, (4, 3, 5)), torch.ones(4, 3, 5, dtype=torch.bool))
    labels, uniforms = torch.tensor([0, 2, 1, 2]), torch.rand(4, *prior.noise_shape)
    with torch.inference_mode():
        twin = with_steps(prior, BFLOAT16, CPU)
        weight = twin.complete(labels, uniforms, SamplerSettings(), known).log_weight
        expected = prior.log_prob(known.latents, labels)
    assert not torch.equal(weight, expected)
    torch.testing.assert_close(weight, expected, rtol=3e-2, atol=0.1)


def test_threads_draw_from_one_prior_each_in_its_precision():
    prior = make_prior()
    labels, uniforms = torch.arange(64) % CLASSES, torch.rand(64, *prior.noise_shape)
    walkers = (prior, with_steps(prior, BFLOAT16, CPU))
    wanted = [walker.sample(labels, uniforms, SamplerSettings()) for walker in walkers]
    found = []

    def draw(which):
        for _ in range(5):
            found.append((which, walkers[which].sample(labels, uniforms, SamplerSettings())))

    threads = [threading.Thread(target=draw, args=(which,)) for which in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(latents, wanted[which]) for which, latents in found)
