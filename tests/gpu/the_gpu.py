"""What tests on a GPU share."""

import pytest
import torch

from stages.core.devices import resolve_device

__all__ = ["CPU", "gpu", "needs_gpu"]

CPU = torch.device("cpu")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def gpu():
    """Set up as stages do."""
    return resolve_device("cuda")
