"""The feature networks of a judgement: the line's own judge first, then those the options name.

All are opened before anything is looked at: hours of sampling must not wait for a missing file.
"""

import torch

from stages.assembly.judge import Judge
from stages.core.sections import load_member
from stages.core.shapes import ImageShape
from stages.extractors.base import Extractor, ExtractorOptions
from stages.extractors.classifier import Classifier

__all__ = ["open_networks"]


def open_networks(
    judge: Judge,
    further: tuple[ExtractorOptions, ...],
    image: ImageShape,
    device: torch.device,
) -> list[Extractor]:
    """Open them.

    Args:
        judge: Of the line.
        further: The other networks, by kind and weights.
        image: Shape of the images they will be shown.
        device: Where they compute.

    Raises:
        ParamsError: If weights are missing or are not those published, or a network cannot see
            such images.
    """
    others = [load_member(Extractor, one.kind).open(one, image, device) for one in further]
    return [Classifier(judge), *others]
