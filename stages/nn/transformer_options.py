"""What priors made of transformers ask of params.yaml, whatever they lay them along."""

from pydantic import Field, model_validator

from stages.core.sections import Section

__all__ = ["CausalTransformerOptions", "TransformerSizeOptions"]


class TransformerSizeOptions(Section):
    """Width and classes: a part of the sections of all of them."""

    width: int = Field(gt=0)
    """Of the residual streams; a multiple of `num_heads`."""
    num_heads: int = Field(gt=0)
    label_dropout: float = Field(ge=0, lt=1)
    """How often training replaces the class by 'no class'; above 0 if guidance is wanted."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerSizeOptions":
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads; got {self.width} and {self.num_heads}"
            )
        return self


class CausalTransformerOptions(TransformerSizeOptions):
    """Regularisation of stages/nn/transformer.py."""

    token_dropout: float = Field(ge=0, lt=1)
    """Of the numbers of every input: class or token, its place included."""
    residual_dropout: float = Field(ge=0, lt=1)
    """Of what attention adds to the stream."""
    feed_forward_dropout: float = Field(ge=0, lt=1)
    """Of what the feed-forward layer adds to the stream."""
    attention_dropout: float = Field(ge=0, lt=1)
    """Of the attention weights; above 0 most devices lose their fastest kernels."""
    query_key_norm: bool
    """Whether queries and keys are normalised per head: attention logits stay bounded."""
