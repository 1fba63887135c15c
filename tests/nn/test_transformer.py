"""The causal transformer and its cache."""

import pytest
import torch

from stages.nn.transformer import Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from tests.nn.loud_weights import louder
from tests.priors.sections import BLOCKS

BATCH, TOKENS, WIDTH = 2, 7, 12


def options(**changes):
    return CausalTransformerOptions(**{**BLOCKS, **changes})


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    return louder(Transformer(3, options(width=WIDTH, num_heads=4, token_dropout=0.3)))


def test_hidden_states_do_not_depend_on_later_inputs(transformer):
    inputs = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    for position in range(TOKENS):
        hidden = transformer(inputs)[:, position].square().sum()
        (gradient,) = torch.autograd.grad(hidden, inputs)
        assert (gradient[:, position + 1 :] == 0).all()
        assert (gradient[:, : position + 1].abs().amax(dim=2) > 0).all()


def test_steps_with_a_cache_equal_the_full_forward(transformer):
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    full = transformer(inputs)
    cache = transformer.new_cache(inputs[:, 0], TOKENS)
    for position in range(TOKENS):
        hidden = transformer.step(inputs[:, position], cache)
        torch.testing.assert_close(hidden, full[:, position], rtol=1e-4, atol=1e-5)
    assert cache.length == TOKENS


def test_attention_equals_its_definition(transformer):
    attention = transformer.blocks[0].attention
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    projected = (inputs @ attention.project_in.weight.T).view(BATCH, TOKENS, 3, 4, 3)
    expected = torch.zeros(BATCH, TOKENS, 4, 3)
    for head in range(4):
        queries, keys, values = projected[:, :, :, head].unbind(dim=2)
        eps = torch.finfo(torch.float32).eps
        queries, keys = (
            x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain
            for x, gain in zip((queries, keys), attention.gain[:, 0], strict=True)
        )
        logits = queries @ keys.mT / 3**0.5
        future = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        expected[:, :, head] = logits.masked_fill(future, -torch.inf).softmax(-1) @ values
    expected = expected.flatten(2) @ attention.project_out.weight.T
    torch.testing.assert_close(attention(inputs), expected, rtol=1e-4, atol=1e-5)


def test_residual_variance_at_the_start_does_not_grow_with_depth():
    torch.manual_seed(0)
    spread = {}
    for layers in (2, 16):
        network = Transformer(layers, options(width=64, num_heads=4))
        stream, added = torch.randn(2, 5, 64), None
        for block in network.blocks:
            stream, added = block(stream, added)
        spread[layers] = (stream + added).std().item()
    assert spread[16] == pytest.approx(spread[2], rel=0.05)


def test_dropout_acts_in_training_only(transformer):
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    assert torch.equal(transformer(inputs), transformer(inputs))
    transformer.train()
    assert not torch.equal(transformer(inputs), transformer(inputs))
