"""The `sampling` section: how many images, of which classes, and how boldly."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.bottlenecks.base import LatentKind
from stages.core.devices import Precision
from stages.core.errors import ParamsError
from stages.core.sections import Section
from stages.core.seeds import Seed
from stages.heads.base import GuidanceSchedule, SamplerSettings
from stages.nn.stepping import StepSettings

__all__ = ["LARGEST_GUIDANCE", "LARGEST_TEMPERATURE", "LEAST_TEMPERATURE", "SamplingOptions"]

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 1e-6, 1e6
"""Both ends are their limits already: the most probable, and even chances. Far beyond them, or
beyond the largest guidance, float32 overflows and there is no distribution to draw from."""
LARGEST_GUIDANCE = 1e4

Label = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=LEAST_TEMPERATURE, le=LARGEST_TEMPERATURE)]


class SamplingOptions(Section):
    """What to draw."""

    count: int = Field(gt=0)
    """Images."""
    seed: Seed
    """Image i depends on this and on i, and on no other number of the section but how to draw."""
    classes: list[Label]
    """Classes to draw, in turn: image i is of class classes[i mod length]; []: all of them."""
    temperature: Temperature
    """Of the choice of a code or of a mixture component; below 1: safer and less diverse; 1: the
    model itself."""
    top_k: int = Field(ge=0)
    """Keep the k most probable codes (or mixture components) of every token; 0: all."""
    top_p: float = Field(gt=0, le=1)
    """Keep the most probable codes (or components) up to this probability; 1: all."""
    pixels: Literal["mean", "draw"]
    """What is shown of p(x given z): its mean, or a draw, noise and all. A draw is what an
    autoregressive likelihood means by an image."""
    guidance: float = Field(ge=0, le=LARGEST_GUIDANCE)
    """1: none; above: more typical of the class; 0: as if without a class."""
    batch_size: int = Field(gt=0)
    """Images between two safe points of the run; rounded up to what the networks draw at once."""

    min_p: float = Field(ge=0, lt=1)
    """Keep the codes (or components) at least this times as probable as the best; 0: all."""
    variance_temperature: Temperature
    """Multiplies the standard deviations that continuous latents are drawn with; 1: the model's.
    Codes have none: 1."""
    guidance_schedule: GuidanceSchedule
    """How guidance grows from 1 over the tokens; constant: not at all."""
    guidance_power: float = Field(gt=0)
    """Exponent of a token's place in the sequence before the schedule is applied; above 1: guided
    later. 1 with a constant schedule."""
    guidance_interval: tuple[Share, Share]
    """Share of the sequence at which guidance begins, and at which it ends; [0, 1]: all of it."""
    rejection_tries: int = Field(gt=0)
    """Candidates drawn for every image, of which the judge lets one pass; 1: none is rejected."""
    rejection_threshold: float = Field(gt=0, le=1)
    """The first candidate whose class the judge finds this probable is kept, the best if there is
    none such; 1: the best of all candidates."""
    compile: bool
    """Take the steps of the prior's transformers by one call each, of a kernel compiled in seconds
    or, for sizes it does not know and on a GPU, by torch.compile, which pays for large jobs only.
    Images differ by rounding, so now and then by a code."""
    precision: Precision
    """Of the products of the prior's step, and of the keys and values it keeps: auto (bf16 where
    the device is fast at it), or by name; on a CPU that is not, bfloat16 is slow unless compiled.
    Images differ by rounding."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "SamplingOptions":
        start, end = self.guidance_interval
        if start >= end:
            raise ValueError(
                f"guidance_interval must begin before it ends; got [{start}, {end}]; "
                "for no guidance at all set guidance: 1"
            )
        shaped = self.guidance_schedule != "constant" or (start, end) != (0, 1)
        if self.guidance == 1 and shaped:
            raise ValueError(
                "guidance 1 is no guidance, so guidance_schedule must be constant and "
                f"guidance_interval [0, 1]; got {self.guidance_schedule} and [{start}, {end}]"
            )
        if self.guidance_schedule == "constant" and self.guidance_power != 1:
            raise ValueError(
                "guidance_power must be 1 with guidance_schedule constant, which it cannot bend; "
                f"got {self.guidance_power}"
            )
        if self.rejection_tries == 1 and self.rejection_threshold != 1:
            raise ValueError(
                "rejection_threshold must be 1 with rejection_tries 1: there is one candidate "
                f"only, kept whatever the judge says; got {self.rejection_threshold}"
            )
        return self

    @property
    def settings(self) -> SamplerSettings:
        """What a prior needs to know."""
        return SamplerSettings(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            guidance=self.guidance,
            min_p=self.min_p,
            variance_temperature=self.variance_temperature,
            guidance_schedule=self.guidance_schedule,
            guidance_power=self.guidance_power,
            guidance_interval=self.guidance_interval,
        )

    @property
    def steps(self) -> StepSettings:
        """How the prior's transformers are to take their steps."""
        return StepSettings(self.precision, self.compile)

    @property
    def rejects(self) -> bool:
        """Whether the judge chooses among candidates."""
        return self.rejection_tries > 1

    def check_latents(self, kind: LatentKind) -> None:
        """Refuse what such latents have no use for.

        Raises:
            ParamsError: If codes are to have a variance.
        """
        if kind == "codes" and self.variance_temperature != 1:
            raise ParamsError(
                "sampling.variance_temperature: must be 1 for codes, which have no variance "
                f"(sampling.temperature is theirs); got {self.variance_temperature}"
            )

    def classes_for(self, num_classes: int) -> list[int]:
        """The classes to go through in turn; none where there are no classes.

        Args:
            num_classes: Classes that can be asked for; 0: none.

        Raises:
            ParamsError: If a class does not exist, or what only classes make possible is asked for
                without them.
        """
        if num_classes == 0 and self.classes:
            raise ParamsError(
                f"sampling.classes: must be [] for a prior without classes; got {self.classes}"
            )
        if num_classes == 0 and self.guidance != 1:
            raise ParamsError(
                f"sampling.guidance: must be 1 for a prior without classes; got {self.guidance}"
            )
        if num_classes == 0 and self.rejects:
            raise ParamsError(
                "sampling.rejection_tries: must be 1 without classes: there is none whose "
                f"probability could be judged; got {self.rejection_tries}"
            )
        unknown = [label for label in self.classes if label >= num_classes]
        if unknown:
            raise ParamsError(
                f"sampling.classes: must be classes from 0 to {num_classes - 1}; got {unknown}"
            )
        return self.classes or list(range(num_classes))
