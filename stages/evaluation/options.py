"""How much of the line is looked at: the `evaluate` section."""

from pydantic import Field

from stages.core.sections import Section

__all__ = ["EvaluateOptions"]


class EvaluateOptions(Section):
    """The `evaluate` section."""

    batch_size: int = Field(gt=0)
    """Images per pass through the networks; a matter of memory, not of the figures."""
    max_images: int = Field(ge=0)
    """Images of the training and of the test split to look at, evenly spaced; 0: all."""
    num_reconstructions: int = Field(gt=0)
    """Test images shown beside their reconstructions."""
    samples_per_class: int = Field(gt=0)
    """Samples shown of each class; without classes ten times as many in all."""
    neighbour_queries: int = Field(gt=0)
    """Samples, and test images, whose nearest training images are sought."""
    num_neighbours: int = Field(gt=0)
    """Samples shown beside their nearest training images."""
