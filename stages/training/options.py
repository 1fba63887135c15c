"""How long, how fast and how carefully a model is trained: the same section for every stage."""

from typing import Literal

from pydantic import Field, model_validator

from stages.core.devices import Precision
from stages.core.sections import Section

__all__ = ["TrainingOptions"]


class TrainingOptions(Section):
    """The `train_autoencoder`, `train_prior` and `train_judge` sections."""

    steps: int = Field(gt=0)
    """Optimiser steps; early stopping may end before."""
    batch_size: int = Field(gt=0)
    """Images per step, over all processes."""
    pieces: int = Field(gt=0)
    """Parts of equal size into which every batch is cut; processes (`compute`) share them, so there
    must be as many at least. One process computes them one after another, in less memory. Every
    piece draws from its own stream. 1: the stage stays in one process."""
    learning_rate: float = Field(gt=0)
    """AdamW's peak learning rate."""
    final_learning_rate: float = Field(ge=0)
    """Learning rate at the last step; equal to `learning_rate` for none but the warm-up."""
    warmup_steps: int = Field(ge=0)
    """Steps of linear warm-up from 0."""
    decay: Literal["cosine", "linear"]
    """Shape of the way from the peak to the final learning rate."""
    weight_decay: float = Field(ge=0)
    """Decoupled weight decay, on matrices and kernels only (not on biases, gains, codebooks)."""
    betas: tuple[float, float]
    """AdamW's moment decays."""
    gradient_clip: float = Field(gt=0)
    """Largest global gradient norm."""
    skip_above_norm: float = Field(ge=0)
    """A step whose gradient norm is above this, before clipping, is not taken (Child 2021); 0: all
    are. Not during the warm-up, and not many times in a row."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the weight average, warmed up as (1 + step) / (10 + step); 0 for none."""
    precision: Precision
    """Of products and convolutions: auto (bf16 where the device is fast at it), or by name."""
    channels_last: bool
    """Memory layout of convolutions: faster on most devices."""
    compile: bool
    """torch.compile the model: pays for long runs only."""
    validate_every: int = Field(gt=0)
    """Steps between validation passes (there is one after the last step as well)."""
    patience: int = Field(ge=0)
    """Validations without improvement before stopping early; 0: never. Keeps the best weights."""
    checkpoint_seconds: float = Field(gt=0)
    """Wall seconds between checkpoints; they do not change the result."""

    @model_validator(mode="after")
    def _check(self) -> "TrainingOptions":
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps must be below steps; got {self.warmup_steps} of {self.steps}"
            )
        if self.final_learning_rate > self.learning_rate:
            raise ValueError("final_learning_rate must not exceed learning_rate")
        if self.batch_size % self.pieces:
            raise ValueError(
                f"batch_size must be a multiple of pieces; got {self.batch_size} images in "
                f"{self.pieces} pieces"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must lie in [0, 1)")
        return self
