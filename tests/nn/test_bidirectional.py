"""The bidirectional transformer: its definition, its symmetry, its start."""

import pytest
import torch

from stages.nn.bidirectional import BidirectionalTransformer

BATCH, TOKENS, WIDTH = 2, 7, 12


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    network = BidirectionalTransformer(layers=2, width=WIDTH, num_heads=4)
    for parameter in network.parameters():
        # At the start every branch is silent.
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network


def test_attention_equals_its_definition(transformer):
    attention = transformer.blocks[0].attention
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    projected = attention.project_in(inputs).view(BATCH, TOKENS, 3, 4, 3)
    expected = torch.zeros(BATCH, TOKENS, 4, 3)
    eps = torch.finfo(torch.float32).eps
    for head in range(4):
        queries, keys, values = projected[:, :, :, head].unbind(dim=2)
        queries, keys = (
            x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain
            for x, gain in ((queries, attention.query_gain), (keys, attention.key_gain))
        )
        expected[:, :, head] = (queries @ keys.mT / 3**0.5).softmax(-1) @ values
    expected = attention.project_out(expected.flatten(2))
    torch.testing.assert_close(attention(inputs), expected, rtol=1e-4, atol=1e-5)


def test_every_position_sees_every_other(transformer):
    inputs = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    for position in range(TOKENS):
        (gradient,) = torch.autograd.grad(transformer(inputs)[:, position].sum(), inputs)
        assert (gradient.abs().amax(dim=2) > 0).all()


def test_it_does_not_know_the_order_of_its_tokens(transformer):
    inputs, order = torch.randn(BATCH, TOKENS, WIDTH), torch.randperm(TOKENS)
    torch.testing.assert_close(transformer(inputs[:, order]), transformer(inputs)[:, order])


def test_any_depth_is_the_norm_alone_before_training():
    network = BidirectionalTransformer(layers=9, width=WIDTH, num_heads=3)
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    torch.testing.assert_close(network(inputs), network.norm(inputs))


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    plain = BidirectionalTransformer(layers=2, width=WIDTH, num_heads=4)
    dropping = BidirectionalTransformer(layers=2, width=WIDTH, num_heads=4, dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    inputs = torch.randn(BATCH, TOKENS, WIDTH)
    assert torch.equal(dropping.eval()(inputs), plain(inputs))
    assert not torch.allclose(dropping.train()(inputs), plain(inputs))
