"""The kernels for one query: as PyTorch, over what is filled; it looks at nothing else."""

import pytest
import torch
import torch.nn.functional as F

from stages.nn.attention import OneToken
from stages.nn.kernels import decode_attention
from stages.nn.kernels.decode_attention import attend_to_cache, can_attend_to_cache

ROWS, HEADS, ROOM = 3, 2, 40


pytestmark = pytest.mark.usefixtures("_compiler")


@pytest.fixture(params=["cpu", "cuda"])
def _device(request):
    """Where tensors are made."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    if request.param == "cuda" and request.config.getoption("jaxtyping_packages"):
        pytest.skip("with its shapes checked, Triton cannot compile it: see tests/gpu")
    with torch.device(request.param):
        yield


on_every_device = pytest.mark.usefixtures("_device")


def token(dtype: torch.dtype, head_dim: int) -> OneToken:
    return torch.randn(ROWS, HEADS, 1, head_dim).to(dtype)


def filled_up_to(now: int, dtype: torch.dtype, head_dim: int) -> torch.Tensor:
    cache = torch.randn(ROWS, HEADS, ROOM, head_dim).to(dtype)
    cache[:, :, now:] = torch.nan
    return cache


@on_every_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("head_dim", "now"), [(16, 0), (16, 17), (36, 31), (36, ROOM - 1)])
def test_equals_attention_to_what_is_filled(dtype, head_dim, now):
    torch.manual_seed(0)
    query, key, value = (token(dtype, head_dim) for _ in range(3))
    keys, values = (filled_up_to(now, dtype, head_dim) for _ in range(2))
    expected_keys, expected_values = keys.clone(), values.clone()
    expected_keys[:, :, now] = key[:, :, 0]
    expected_values[:, :, now] = value[:, :, 0]
    expected = F.scaled_dot_product_attention(
        query.double(),
        expected_keys[:, :, : now + 1].double(),
        expected_values[:, :, : now + 1].double(),
    )

    mixed = attend_to_cache(query, key, value, keys, values, torch.tensor([now]))

    tolerance = 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(mixed.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(keys, expected_keys, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(values, expected_values, rtol=0, atol=0, equal_nan=True)


@on_every_device
def test_large_logits_do_not_overflow():
    query, key, value = (1e3 * token(torch.float32, 16) for _ in range(3))
    keys, values = (filled_up_to(0, torch.float32, 16) for _ in range(2))
    for now in range(3):
        mixed = attend_to_cache(query, key * now, value, keys, values, torch.tensor([now]))
    torch.testing.assert_close(mixed, value)


@on_every_device
def test_tokens_may_be_views_of_a_projection():
    torch.manual_seed(0)
    projected = torch.randn(ROWS, 1, 3, HEADS, 16)
    views = projected.permute(2, 0, 3, 1, 4)
    mixed = []
    for query, key, value in (views, views.contiguous(), views.transpose(-1, -2).mT):
        keys, values = (torch.zeros(ROWS, HEADS, ROOM, 16) for _ in range(2))
        mixed.append(attend_to_cache(query, key, value, keys, values, torch.tensor([0])))
    assert torch.equal(mixed[0], mixed[1])
    assert torch.equal(mixed[0], mixed[2])


@on_every_device
def test_a_slice_of_a_cache_will_do():
    torch.manual_seed(0)
    query, key, value = (token(torch.float32, 16) for _ in range(3))
    keys, values = (filled_up_to(5, torch.float32, 16) for _ in range(2))
    whole = attend_to_cache(query, key, value, keys, values, torch.tensor([5]))
    part = attend_to_cache(query, key, value, keys[:, :, :16], values[:, :, :16], torch.tensor([5]))
    assert torch.equal(whole, part)


def test_results_do_not_depend_on_threads():
    torch.manual_seed(0)
    query, key, value = (token(torch.bfloat16, 36) for _ in range(3))
    keys, values = (filled_up_to(33, torch.bfloat16, 36) for _ in range(2))
    before = torch.get_num_threads()
    mixed = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            mixed.append(attend_to_cache(query, key, value, keys, values, torch.tensor([33])))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(mixed[0], mixed[1])
    assert torch.equal(mixed[0], mixed[2])


def test_others_are_left_to_pytorch(monkeypatch):
    assert not can_attend_to_cache(torch.zeros(1, 1, 1, 16, dtype=torch.float64))
    assert not can_attend_to_cache(torch.zeros(1, 1, 1, 16, device="meta"))
    monkeypatch.setattr(decode_attention, "can_compile", lambda: False)
    assert not can_attend_to_cache(torch.zeros(1, 1, 1, 16))
