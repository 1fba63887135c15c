"""When latents count as collapsed.

Apart from the monitor, which draws: every stage checks these options, and importing matplotlib
takes half a second.
"""

from pydantic import Field, model_validator

from stages.core.sections import Section

__all__ = ["CollapseOptions"]


class CollapseOptions(Section):
    """The `collapse` section."""

    dimension_below: float = Field(ge=0)
    """Nats of KL over the validation split below which a latent dimension is collapsed."""
    warn_above: float = Field(ge=0, le=1)
    """Share of collapsed dimensions, or of dead codes, above which there is a warning."""
    alarm_above: float = Field(ge=0, le=1)
    """Share above which there is the alarm, and a tag on the tracked run."""
    after_steps: int = Field(ge=0)
    """Validations before this step are recorded, but neither warned about nor alarmed at: young
    models have said nothing yet."""
    stop: bool
    """Whether the alarm ends the stage, with exit status 1."""

    @model_validator(mode="after")
    def _warns_first(self) -> "CollapseOptions":
        if self.warn_above > self.alarm_above:
            raise ValueError(
                f"warn_above must not exceed alarm_above; got {self.warn_above} and "
                f"{self.alarm_above}"
            )
        return self
