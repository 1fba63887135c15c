"""Operators of our own: functions of tensors that compiled code calls as they are."""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["operator"]

_NAMESPACE = "latentline"

# Kept: what is declared goes when this goes.
_library = torch.library.Library(_NAMESPACE, "FRAGMENT")


def operator(
    schema: str, empty: Callable[..., Any], **implementations: Callable[..., Any]
) -> Callable[..., Any]:
    """Declare an operator.

    `torch.library.custom_op` would do, but takes 25 microseconds a call, as long as a product of
    few rows.

    Args:
        schema: Its name, arguments and result, as PyTorch writes them; what it writes into is
            marked: `Tensor(a!)`.
        empty: Its result without the numbers, by which compilers know shape and dtype.
        implementations: Dispatch key (CPU, CUDA, ...) -> what computes it there.

    Returns:
        The operator.
    """
    name = schema.partition("(")[0]
    _library.define(schema)
    for key, compute in implementations.items():
        _library.impl(name, compute, key)
    torch.library.register_fake(f"{_NAMESPACE}::{name}", empty, lib=_library)
    return getattr(getattr(torch.ops, _NAMESPACE), name)
