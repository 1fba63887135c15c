"""Where and in which precision tensors live, decided by what the machine can do.

`auto` is resolved here and nowhere else. bf16 is chosen only where matrix products in it are
native (CUDA's tensor cores, AMX or AVX-512 BF16 on a CPU): elsewhere autocast is slower than
float32. It is the same decision on every run of one machine, so bytes stay reproducible.
"""

import contextlib
from typing import Literal

import torch

from stages.core.errors import ParamsError

__all__ = ["Device", "Precision", "autocast", "resolve_device", "resolve_precision"]

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
        # On a CPU the same build adds in the same order anyway, and this switch would turn the
        # fast convolutions off (four times slower).
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return torch.device(chosen)


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
