"""What every prior made of transformers asks of params.yaml, whatever it lays them along."""

from pydantic import Field, model_validator

from stages.core.sections import Section

__all__ = ["TransformerSizeOptions"]


class TransformerSizeOptions(Section):
    """Width and regularisation: a part of the sections of several priors."""

    width: int = Field(gt=0)
    """Of the residual streams; a multiple of `num_heads`."""
    num_heads: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    """Of the inputs and of the residual branches."""
    label_dropout: float = Field(ge=0, lt=1)
    """How often training replaces the class by 'no class'; above 0 if guidance is wanted."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerSizeOptions":
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads; got {self.width} and {self.num_heads}"
            )
        return self
