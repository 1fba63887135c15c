"""The Frechet distance of images from a test split in one network, with its protocol."""

from stages.evaluation.image_sets import ImageSet
from stages.extractors.base import Extractor
from stages.metrics.feature_set import FeatureSet
from stages.metrics.figure import Figure
from stages.metrics.frechet import frechet_figures
from stages.metrics.pair import DistanceOptions, Pair
from stages.metrics.protocol import Protocol

__all__ = ["frechet_from_test"]

SETTINGS = DistanceOptions(
    resamples=1000,
    level=0.95,
    infinity_points=0,
    kernel_block=0,
    precision_neighbours=3,
    density_neighbours=5,
    score_splits=10,
)


def frechet_from_test(
    network: Extractor,
    images: FeatureSet,
    reference: FeatureSet,
    test: ImageSet,
    seed: int,
    *,
    shows: str,
    rounding: str,
    label_balance: str,
) -> Figure:
    """The distance, with an interval.

    Args:
        network: In which they were seen.
        images: What is measured.
        reference: The test images.
        test: The same as images.
        seed: Of the bootstrap.
        shows: What the images are; `rounding` and `label_balance` as a protocol has them.
        rounding: From intensities to 8-bit pixels.
        label_balance: Images of each class.
    """
    rule = network.rule(test.shape)
    protocol = Protocol(
        images=shows,
        reference_split="test",
        reference_n=len(reference),
        reference_sha256=test.digest,
        resize=rule.resize,
        antialias=rule.antialias,
        rounding=rounding,
        label_balance=label_balance,
        extractor=network.title,
        extractor_sha256=network.checksum,
    )
    [figure] = frechet_figures(Pair(images, reference, network.name, SETTINGS, seed, protocol))
    return figure
