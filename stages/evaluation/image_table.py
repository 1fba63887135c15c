"""How probable the line holds each image: a row per image, the least probable first.

    total = distortion + prior                     codes, and points
    total = distortion + rate,   rate = log q(z given x) - log p(z)      posteriors, one draw

in nats: for codes and posteriors an upper bound on -log p(x) whose mean over the test split is
that of `evaluate`; of points the sum of two log-densities, which orders images and bounds nothing.
Images are encoded as they come: nothing has to be stored of them.

A low likelihood says that an image is unlike the training images in some respect, not in which: the
two parts tell apart what surprises the prior (the arrangement) from what the decoder cannot paint.
It is known to rate some foreign images as *more* probable, plain ones above all (Nalisnick et al.
2018, arXiv:1810.09136).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from stages.assembly.first_stage import FirstStage
from stages.assembly.second_stage import SecondStage
from stages.core.errors import ArtifactError, DataError
from stages.core.intensities import from_pixels
from stages.core.progress import progress
from stages.core.randomness import torch_stream
from stages.core.shapes import Labels, Pixels
from stages.evaluation.given_images import GivenImages, Piece
from stages.evaluation.observe import observe
from stages.metrics.base import Observation
from stages.nn.distributions import Posterior
from stages.nn.posteriors import family_of
from stages.stores.latents import LatentBatch

__all__ = ["ImageTable", "LikelihoodOfImages"]

ORDER = "total_nats"


@dataclass(frozen=True)
class ImageTable:
    """What was found."""

    rows: pd.DataFrame
    """Columns index, label, class_name, file (where they are known), prior_nats, rate_nats (of
    posteriors), distortion_nats, total_nats, bits_per_dim (of discretized likelihoods)."""
    least_likely: np.ndarray
    """The images of the first rows, uint8 (shown, channels, height, width)."""
    reconstructions: np.ndarray
    """What the autoencoder makes of them."""


class LikelihoodOfImages:
    """Judges images one piece at a time.

    Args:
        first: The autoencoder, on `device`.
        second: The prior, on `device`.
        seed: Of the draws of posteriors; image i is drawn the same in whatever company.
        device: Where to compute.

    Raises:
        ArtifactError: If the prior is of another autoencoder.
    """

    def __init__(
        self, first: FirstStage, second: SecondStage, seed: int, device: torch.device
    ) -> None:
        if second.autoencoder_digest != first.artifact.digest:
            raise ArtifactError(
                f"{second.artifact.path} was made from autoencoder {second.autoencoder_digest}, "
                f"but {first.artifact.path} is {first.artifact.digest}; use the two that belong "
                "together"
            )
        self.first, self.second, self.seed, self.device = first, second, seed, device
        self.spec = second.prior.spec
        points = self.spec.kind == "continuous" and self.spec.deterministic
        self.has_bits = first.params.likelihood.discretized and not points

    def table(self, images: GivenImages, batch_size: int, shown: int) -> ImageTable:
        """Judge all images; no more than a batch and the least likely ones are in memory.

        Args:
            images: What to judge.
            batch_size: Images at a time.
            shown: How many of the least likely to keep.

        Raises:
            DataError: If images are missing, of another shape, or without classes that are needed.
        """
        parts: list[pd.DataFrame] = []
        worst = _Worst(shown)
        with progress(len(images), 0, "image", "likelihood") as bar:
            for piece in images.pieces(batch_size):
                seen = self._observe(piece)
                parts.append(self._rows(piece, seen, images.prepared.class_names))
                worst.add(parts[-1][ORDER].to_numpy(), piece.pixels, seen.reconstructions.numpy())
                bar.advance(len(piece.pixels))
        rows = pd.concat(parts, ignore_index=True)
        rows = rows.sort_values(ORDER, ascending=False, kind="stable", ignore_index=True)
        return ImageTable(rows, worst.images, worst.reconstructions)

    @torch.inference_mode()
    def _observe(self, piece: Piece) -> Observation:
        if piece.pixels.shape[1:] != self.first.image:
            raise DataError(
                f"images must be {tuple(self.first.image)} (channels, height, width) for this "
                f"autoencoder, are {piece.pixels.shape[1:]}"
            )
        labels = None if piece.labels is None else torch.from_numpy(piece.labels)
        if labels is None and self.first.autoencoder.num_classes:
            raise DataError(
                "this autoencoder looks at classes: images must lie in folders named as the "
                "classes of the data"
            )
        pixels = torch.from_numpy(piece.pixels)
        rows = range(piece.first, piece.first + len(pixels))
        # The streams of `evaluate`: the same draws, the same figures.
        streams = [torch_stream(self.seed, "evaluate", "posterior", row) for row in rows]
        stored = self._encoded(pixels, labels)
        prior = self.second.prior
        return observe(self.first, prior, pixels, stored, streams, self.device)

    def _encoded(self, pixels: Pixels, labels: Labels | None) -> LatentBatch:
        """As `encode` would store them."""
        given = None
        if labels is not None and self.first.autoencoder.num_classes:
            given = labels.to(self.device)
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact:
            encoded = self.first.autoencoder.encode(from_pixels(pixels.to(self.device)), given)
        if not isinstance(encoded, Posterior):
            return LatentBatch(encoded.cpu(), None, None, labels)
        scale = self.spec.scale
        variance = encoded.log_variance.cpu().double() + 2 * math.log(scale)
        return LatentBatch(
            codes=None,
            mean=(encoded.mean.cpu().double() * scale).float(),
            log_variance=None if self.spec.deterministic else variance.float(),
            labels=labels,
            family=family_of(self.spec.posterior, self.spec.reference),
            scale=scale,
        )

    def _rows(self, piece: Piece, seen: Observation, names: list[str] | None) -> pd.DataFrame:
        columns: dict[str, np.ndarray] = {
            "index": np.arange(piece.first, piece.first + len(piece.pixels))
        }
        if piece.labels is not None:
            columns["label"] = piece.labels
            if names:
                columns["class_name"] = np.array(names, dtype=object)[piece.labels]
        if piece.names:
            columns["file"] = np.array(piece.names, dtype=object)
        prior, distortion = -seen.log_prior.double(), seen.distortion.double()
        columns["prior_nats"], total = prior.numpy(), prior + distortion
        if seen.posterior is not None:
            rate = seen.posterior.log_prob(seen.latents).double() + prior
            columns["rate_nats"], total = rate.numpy(), rate + distortion
        columns["distortion_nats"], columns[ORDER] = distortion.numpy(), total.numpy()
        if self.has_bits:
            columns["bits_per_dim"] = columns[ORDER] / (self.first.image.dims * math.log(2))
        return pd.DataFrame(columns)


class _Worst:
    """The least likely images so far, least likely first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._costs: np.ndarray | None = None
        self.images = self.reconstructions = np.zeros((0, 0, 0, 0), np.uint8)

    def add(self, costs: np.ndarray, images: np.ndarray, reconstructions: np.ndarray) -> None:
        if self._costs is not None:
            costs = np.concatenate([self._costs, costs])
            images = np.concatenate([self.images, images])
            reconstructions = np.concatenate([self.reconstructions, reconstructions])
        kept = np.argsort(-costs, kind="stable")[: self.count]
        self._costs, self.images = costs[kept], images[kept]
        self.reconstructions = reconstructions[kept]
