"""Weights that change over the steps of a training, as functions of the step alone.

With t = steps done and T = the length of the ramp,

    linear      t / T
    cosine      (1 - cos(pi t / T)) / 2
    cyclical    the linear ramp over the first half of each of `cycles` equal parts of T, 1 over
                the second (Fu et al. 2019, arXiv:1903.10145, Eq. 6 with R = 1/2)

all 1 from T on. The step is a tensor, so that a compiled model is compiled once and not at every
step; a run that is resumed goes on where it was, because nothing but the step is looked at.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Ramp", "Step", "ramp"]

Ramp = Literal["linear", "cosine", "cyclical"]
Step = Float[Tensor, ""]
"""Optimiser steps done so far."""

# Share of a cycle that rises; the authors' value.
_RISING = 0.5


def ramp(step: Step | None, steps: int, shape: Ramp, cycles: int = 1) -> Float[Tensor, ""]:
    """Where a ramp from 0 to 1 stands.

    Args:
        step: Steps done; None: as after the last step.
        steps: Length of the ramp; 0: it is over from the start.
        shape: How it rises.
        cycles: Of the cyclical one.

    Returns:
        A number in [0, 1], float32.
    """
    if step is None or steps == 0:
        return torch.ones((), device=None if step is None else step.device)
    done = (step.float() / steps).clamp(0, 1)
    if shape == "linear":
        return done
    if shape == "cosine":
        return (1 - torch.cos(math.pi * done)) / 2
    within = torch.where(done < 1, (done * cycles) % 1, 1.0)
    return (within / _RISING).clamp(max=1)
