"""Where and in which precision tensors live, decided by what the machine can do.

`auto` is resolved here and nowhere else. bf16 is chosen only where matrix products in it are
native (CUDA's tensor cores, AMX or AVX-512 BF16 on a CPU): elsewhere autocast is slower than
float32. It is the same decision on every run of one machine, so bytes stay reproducible.
"""

import contextlib
import os
from typing import Literal

import torch
from torch import Tensor

from stages.core.errors import ParamsError

__all__ = ["Device", "Precision", "autocast", "resolve_device", "resolve_precision", "sent_to"]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


def resolve_device(device: Device) -> torch.device:
    """The device to compute on, set up so that equal runs give equal bytes.

    Raises:
        ParamsError: If a device is asked for by name and is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        chosen = next(name for name, there in available.items() if there)
    elif available[device]:
        chosen = device
    else:
        there = ", ".join(name for name, there in available.items() if there)
        raise ParamsError(f"device: {device!r} is not available on this machine; there is: {there}")
    if chosen == "cuda":
        _make_cuda_deterministic()
    return torch.device(chosen)


def _make_cuda_deterministic() -> None:
    # On a CPU the same build adds in the same order anyway, and this switch would turn the fast
    # convolutions off (four times slower).
    # Strict: told only to warn, fused attention adds its gradients in any order. It also keeps
    # `torch.compile` from adding in the order that was fastest when it was tried.
    torch.use_deterministic_algorithms(True)
    # Nobody here reads memory before writing it; to fill it is a kernel for every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    # Read by cuBLAS when it is first used; without it, it may add in another order each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def sent_to(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, not waiting for what the device is still at.

    A copy from memory that may be swapped out waits for all work before it (CUDA).
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products and convolutions; everything else stays float32."""
    if precision == "auto":
        return torch.bfloat16 if _has_native_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Autocast to `dtype`; nothing at all for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
