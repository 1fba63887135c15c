"""The class of each image as an autoregressive prior is told it, and 'no class' beside them.

One more class, numbered `num_classes`, stands for every image without a label. Label dropout shows
it in training, so that one network knows p(z given y) and p(z); guidance needs both (Ho & Salimans
2022, arXiv:2207.12598):

    log p_guided = log p(z) + guidance (log p(z given y) - log p(z))   up to the normaliser
"""

import torch
from jaxtyping import Int
from torch import Tensor

from stages.core.errors import ParamsError
from stages.core.shapes import Labels

__all__ = ["classes_of", "drop_classes", "followed_by_no_class", "rows_of_pass"]

Classes = Int[Tensor, " batch"]


def classes_of(labels: Labels | None, num_classes: int, like: Tensor) -> Classes:
    """The labels, or 'no class' for each row of `like` where there are none or no classes."""
    if labels is None or num_classes == 0:
        return torch.full((len(like),), num_classes, device=like.device)
    return labels


def drop_classes(classes: Classes, num_classes: int, rate: float) -> Classes:
    """Each class replaced by 'no class' with probability `rate`, by torch's global generator."""
    if rate == 0:
        return classes
    dropped = torch.rand(classes.shape, device=classes.device) < rate
    return classes.masked_fill(dropped, num_classes)


def followed_by_no_class(
    labels: Labels | None, num_classes: int, label_dropout: float
) -> Int[Tensor, " twice_the_batch"]:
    """The rows of a guided pass: every image with its class, then every image without.

    Args:
        labels: Class of each image.
        num_classes: Classes of the data.
        label_dropout: Of the training: whether the prior ever saw 'no class'.

    Raises:
        ParamsError: If there are no classes, or the prior never saw 'no class'.
    """
    if num_classes == 0 or labels is None:
        raise ParamsError(
            "sampling.guidance: must be 1 without classes: there is nothing to guide towards"
        )
    if label_dropout == 0:
        raise ParamsError(
            "sampling.guidance: must be 1 for a prior trained with prior.label_dropout 0: "
            "it never saw 'no class'; train again with label_dropout above 0 (0.1 is usual)"
        )
    return torch.cat([labels, torch.full_like(labels, num_classes)])


def rows_of_pass(
    labels: Labels | None, num_classes: int, label_dropout: float, guidance: float, like: Tensor
) -> Int[Tensor, " rows"]:
    """The classes of a sampling pass: `classes_of`, or under guidance `followed_by_no_class`.

    Raises:
        ParamsError: If guidance is asked for and the prior cannot give it.
    """
    if guidance == 1:
        return classes_of(labels, num_classes, like)
    return followed_by_no_class(labels, num_classes, label_dropout)
