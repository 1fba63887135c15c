"""Attention of whole sequences: the same mixture whichever way it is computed."""

import pytest
import torch
from torch import Tensor

from stages.nn.softmax_attention import attend


def _inputs(tokens: int, dtype: torch.dtype, head_dim: int = 8) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(tokens)
    drawn = torch.randn(3, 2, 3, tokens, head_dim, generator=generator).to(dtype)
    return tuple(part.clone().requires_grad_() for part in drawn)


def _by_definition(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Tensor:
    logits = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
    if causal:
        places = torch.arange(queries.shape[2])
        logits = logits.masked_fill(places > places[:, None], -torch.inf)
    return logits.softmax(dim=3) @ values


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 256, 257])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_are_those_of_the_definition(
    causal: bool, tokens: int, dtype: torch.dtype, error: float
) -> None:
    inputs = _inputs(tokens, dtype)
    exact = tuple(part.detach().double().requires_grad_() for part in inputs)
    mixed, expected = attend(*inputs, causal=causal), _by_definition(*exact, causal)
    torch.testing.assert_close(mixed.double(), expected, atol=error, rtol=error)
    weights = torch.linspace(-1, 1, mixed.numel(), dtype=torch.float64).view(mixed.shape)
    gradients = torch.autograd.grad((mixed.double() * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), exact)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), want, atol=2 * error, rtol=2 * error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_weights_and_lifts_the_others(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    queries, keys, _ = _inputs(64, dtype, head_dim=64)
    values = torch.eye(64, dtype=dtype).expand(2, 3, 64, 64)
    whole = attend(queries, keys, values, causal=False)
    thinned = attend(queries, keys, values, causal=False, dropout=0.25)
    kept = thinned != 0
    assert 0.72 < kept.double().mean() < 0.78
    torch.testing.assert_close(thinned[kept], whole[kept] / 0.75, atol=2e-2, rtol=2e-2)
