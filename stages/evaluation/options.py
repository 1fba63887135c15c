"""How much of the line is looked at: the `evaluate` section."""

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from stages.core.errors import ParamsError
from stages.core.sections import Section, validate
from stages.extractors.base import ExtractorOptions
from stages.metrics.pair import LEAST_IMAGES, DistanceOptions

__all__ = ["EvaluateOptions"]

_LEAST_POINTS = 3
"""With fewer there is no telling how well a line through them holds."""


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
    """Samples, and test images, whose nearest training images are sought: drawn at random where
    there are more."""
    iwae_draws: int = Field(ge=0)
    """Draws per image of the importance-weighted likelihood under the first stage's own prior; 0:
    none. Published figures take 5000. Codes and points have no weights, and then no such figure."""
    iwae_prior_draws: int = Field(ge=0)
    """The same under the prior of the second stage, which is asked for its density each time; 0:
    none."""
    iwae_images: int = Field(ge=0)
    """Test images that are weighed, evenly spaced; 0: all."""
    iwae_batch_size: int = Field(gt=0)
    """Images weighed together; their draws share a stream."""
    factor_images: int = Field(ge=0)
    """Test images whose latents are held against known factors (disentanglement); 0: none. Data
    without known factors have no such figures."""
    lpips_weights: str
    """Folder with squeezenet1_1.pth and squeeze.pth, for LPIPS of reconstructions; "": none."""
    num_neighbours: int = Field(gt=0)
    """Samples shown beside their nearest training images."""
    networks: tuple[SerializeAsAny[ExtractorOptions], ...]
    """Feature networks beside the line's own judge, each `{kind: NAME, weights: PATH}`, in whose
    features sets of images are compared too; []: none."""

    distances: DistanceOptions
    """How sets of features are compared."""
    coded_images: int = Field(ge=0)
    """Test images really coded into a file and decoded again, evenly spaced; 0: none. Codes under a
    discretized likelihood and a prior that predicts them one by one."""

    @field_validator("networks", mode="before")
    @classmethod
    def _read_networks(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        read = tuple(map(_network, value))
        kinds = [network.kind for network in read]
        if "classifier" in kinds or len(set(kinds)) < len(kinds):
            raise ValueError(
                "must name each network once, and not classifier: the line's own judge always looks"
            )
        return read

    @field_validator("distances")
    @classmethod
    def _enough_points_for_a_line(cls, value: DistanceOptions) -> DistanceOptions:
        if 0 < value.infinity_points < _LEAST_POINTS:
            raise ValueError(
                f"infinity_points must be 0 (none) or at least {_LEAST_POINTS}, to draw a line "
                f"through distances; got {value.infinity_points}"
            )
        return value

    @model_validator(mode="after")
    def _looks_at_sets(self) -> "EvaluateOptions":
        density = self.distances.density_neighbours
        of_reference = {f"evaluate.distances.density_neighbours {density}": density + 1}
        least, why = _largest(self._least_of_both | of_reference)
        if 0 < self.max_images < least:
            raise ValueError(
                f"max_images must be 0 (all) or at least {least}, for {why}; got {self.max_images}"
            )
        return self

    def check_samples(self, count: int) -> None:
        """Refuse fewer samples than the distances ask for.

        Args:
            count: How many there will be.

        Raises:
            ParamsError: Naming what asks for more.
        """
        least, why = _largest(self._least_of_both)
        if count < least:
            raise ParamsError(f"sampling.count: must be at least {least}, for {why}; got {count}")

    @property
    def _least_of_both(self) -> dict[str, int]:
        """Images that samples and reference must have alike: what asks -> how many."""
        block, precision = self.distances.kernel_block, self.distances.precision_neighbours
        return {
            "distances between sets": LEAST_IMAGES,
            f"two blocks of evaluate.distances.kernel_block {block}": 2 * block,
            f"evaluate.distances.precision_neighbours {precision}": precision + 1,
        }


def _largest(least: dict[str, int]) -> tuple[int, str]:
    """The most that anything asks for, and what does."""
    why = max(least, key=lambda name: least[name])
    return least[why], why


def _network(value: Any) -> ExtractorOptions:
    if isinstance(value, ExtractorOptions):
        return value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise ValueError("must be a list of {kind: NAME, weights: PATH}")
    return validate(ExtractorOptions.of_kind(kind), value, source=kind)
