"""Steps in bfloat16: near those in float32, and nobody else notices."""

import threading

import torch

from stages.bottlenecks.base import LatentSpec
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.nn.step_precision import with_steps_in
from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.base import KnownLatents
from stages.priors.transformer import TransformerOptions, TransformerPrior
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS, TRANSFORMER

CODES, CLASSES = 7, 3
BFLOAT16 = SamplerSettings(precision="bfloat16")


def make_prior():
    torch.manual_seed(0)
    head = CategoricalOptions(kind="categorical", tied=False)
    spec = LatentSpec("codes", 3, 5, CODES)
    return louder(TransformerPrior(TransformerOptions(**TRANSFORMER), head, spec, CLASSES))


def test_steps_are_near_those_in_float32_and_half_as_large():
    torch.manual_seed(0)
    transformer = louder(Transformer(2, CausalTransformerOptions(**BLOCKS)))
    twin = with_steps_in(torch.bfloat16, transformer)
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
    twin = with_steps_in(torch.bfloat16, prior)
    shared = {name for name, each in twin.named_parameters() if each.dtype == torch.float32}
    own = dict(prior.named_parameters())
    assert all(dict(twin.named_parameters())[name] is own[name] for name in shared)
    rounded = set(own) - shared
    assert rounded
    assert all(name.startswith("transformer.") and "project" in name for name in rounded)
    assert prior.transformer.step_precision == torch.float32
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_without_a_transformer_there_is_nothing_to_copy():
    module = torch.nn.Linear(2, 2)
    assert with_steps_in(torch.bfloat16, module) is module


def test_probabilities_are_near_those_of_the_full_forward():
    """With every cell given, a walk weighs the cells as `log_prob` does."""
    prior = make_prior()
    known = KnownLatents(torch.randint(CODES, (4, 3, 5)), torch.ones(4, 3, 5, dtype=torch.bool))
    labels, uniforms = torch.tensor([0, 2, 1, 2]), torch.rand(4, *prior.noise_shape)
    with torch.inference_mode():
        weight = prior.complete(labels, uniforms, BFLOAT16, known).log_weight
        expected = prior.log_prob(known.latents, labels)
    assert not torch.equal(weight, expected)
    torch.testing.assert_close(weight, expected, rtol=3e-2, atol=0.1)


def test_threads_draw_from_one_prior_each_in_its_precision():
    prior = make_prior()
    labels, uniforms = torch.arange(64) % CLASSES, torch.rand(64, *prior.noise_shape)
    wanted = {
        settings: prior.sample(labels, uniforms, settings)
        for settings in (SamplerSettings(), BFLOAT16)
    }
    found = []

    def draw(settings):
        for _ in range(5):
            found.append((settings, prior.sample(labels, uniforms, settings)))

    threads = [threading.Thread(target=draw, args=(settings,)) for settings in (*wanted, *wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(latents, wanted[settings]) for settings, latents in found)
