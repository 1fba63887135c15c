"""Patches, as the backbones that cut an image into them take them from params.yaml."""

from pydantic import Field

from stages.core.errors import ParamsError
from stages.core.sections import Section
from stages.core.shapes import FeatureShape, ImageShape

__all__ = ["PatchOptions"]


class PatchOptions(Section):
    """The size of a patch, of which each becomes one cell of the latent grid."""

    patch: int = Field(ge=1)
    """Rows and columns of a patch, in pixels."""

    def cells(self, maps: int, image: ImageShape) -> FeatureShape:
        """Features of so many maps, one cell per patch.

        Raises:
            ParamsError: If height or width is no multiple of `patch`.
        """
        if image.height % self.patch or image.width % self.patch:
            raise ParamsError(
                f"backbone.patch: height and width of the images must be multiples of it; got "
                f"{self.patch}, and the images are {image.height}x{image.width}; "
                "give another patch, or images of another size"
            )
        return FeatureShape(maps, image.height // self.patch, image.width // self.patch)
