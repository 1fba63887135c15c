"""The `sampling` section: how many images, of which classes, and how boldly."""

from typing import Literal

from pydantic import Field

from stages.core.errors import ParamsError
from stages.core.sections import Section
from stages.heads.base import SamplerSettings

__all__ = ["SamplingOptions"]


class SamplingOptions(Section):
    """What to draw."""

    count: int = Field(gt=0)
    """Images."""
    seed: int = Field(ge=0)
    """Image i depends on this and on i, and on no other number of the section but how to draw."""
    classes: list[int]
    """Classes to draw, in turn: image i is of class classes[i mod length]; []: all of them."""
    temperature: float = Field(gt=0)
    """Below 1: safer and less diverse; 1: the model itself."""
    top_k: int = Field(ge=0)
    """Keep the k most probable codes (or mixture components) of every token; 0: all."""
    top_p: float = Field(gt=0, le=1)
    """Keep the most probable codes (or components) up to this probability; 1: all."""
    pixels: Literal["mean", "draw"]
    """What is shown of p(x given z): its mean, or a draw, noise and all. A draw is what an
    autoregressive likelihood means by an image."""
    guidance: float = Field(ge=0)
    """1: none; above: more typical of the class; 0: as if without a class."""
    batch_size: int = Field(gt=0)
    """Images between two safe points of the run; rounded up to what the networks draw at once."""

    @property
    def settings(self) -> SamplerSettings:
        """What a head needs to know."""
        return SamplerSettings(self.temperature, self.top_k, self.top_p, self.guidance)

    def classes_for(self, num_classes: int) -> list[int]:
        """The classes to go through in turn; none for a prior without classes.

        Raises:
            ParamsError: If a class does not exist, or guidance is asked for without classes.
        """
        if num_classes == 0 and self.classes:
            raise ParamsError(
                f"sampling.classes: must be [] for a prior without classes; got {self.classes}"
            )
        if num_classes == 0 and self.guidance != 1:
            raise ParamsError(
                f"sampling.guidance: must be 1 for a prior without classes; got {self.guidance}"
            )
        unknown = [label for label in self.classes if not 0 <= label < num_classes]
        if unknown:
            raise ParamsError(
                f"sampling.classes: must be classes from 0 to {num_classes - 1}; got {unknown}"
            )
        return self.classes or list(range(num_classes))
