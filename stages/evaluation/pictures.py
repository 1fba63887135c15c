"""What a person looks at before any figure: reconstructions, samples, neighbours, latents."""

from pathlib import Path

import numpy as np
import torch

from stages.core.pictures import grid, labelled_rows, save_png
from stages.evaluation.charts import draw_curves, draw_distances, draw_profile
from stages.evaluation.interpolations import draw_interpolations
from stages.evaluation.judgement import Judgement
from stages.evaluation.levels import draw_levels
from stages.evaluation.line import Line
from stages.evaluation.observe import evenly_spaced
from stages.evaluation.options import EvaluateOptions
from stages.evaluation.traversals import draw_traversals

__all__ = ["draw_pictures"]

COLUMNS = 8
"""Images per row of the widest pictures: still visible on a phone."""
MOVED = 500
"""Test images whose latents say how far a traversal goes."""
LEVELS_SEED = 0
CURVES = (
    (
        "autoencoder",
        "autoencoder",
        {"loss": "training loss", "validation_loss": "validation loss"},
    ),
    (
        "prior",
        "prior",
        {
            "loss": "training loss",
            "validation_nats_per_token": "validation loss in nats per token",
        },
    ),
)
"""Trained part, its name in the caption, columns of its history."""


def draw_pictures(
    folder: Path, line: Line, judgement: Judgement, options: EvaluateOptions, device: torch.device
) -> dict[str, str]:
    """Write all pictures; returns what each shows, name of the file -> description."""
    shown = {}
    rows = evenly_spaced(len(line.latents.split("test")), options.num_reconstructions)
    shown["reconstructions.png"] = _reconstructions(folder, line, rows, device)
    shown["samples.png"] = _samples(folder, line, options.samples_per_class)
    shown["neighbours.png"] = _neighbours(folder, line, judgement, options.num_neighbours)
    shown["neighbour_distances.png"] = draw_distances(
        folder / "neighbour_distances.png",
        judgement.sample_distances[:, 0],
        judgement.test_distances,
        judgement.memorisation,
        judgement.usual_distance,
    )
    values = judgement.profile["value"].to_numpy()
    shown["latents.png"] = draw_profile(folder / "latents.png", values, judgement.profile_title)
    if line.latents.spec.kind == "continuous":
        shown |= _inside(folder, line, judgement, device)
    return shown | _curves(folder, line)


def _curves(folder: Path, line: Line) -> dict[str, str]:
    """Losses of both stages, where their history was kept."""
    shown = {}
    for part, what, columns in CURVES:
        name = f"curves_{part}.png"
        caption = draw_curves(folder / name, line.artifacts[part], columns, what)
        if caption is not None:
            shown[name] = caption
    return shown


def _inside(folder: Path, line: Line, judgement: Judgement, device: torch.device) -> dict[str, str]:
    """What single dimensions and levels of continuous latents do."""
    split = line.latents.split("test")
    stored = split.batch(evenly_spaced(len(split), MOVED))
    assert stored.mean is not None
    kl = None if stored.posterior is None else stored.posterior.kl_per_number().mean(dim=0)
    scale = line.latents.spec.scale
    caption = draw_traversals(
        folder,
        line.first_stage,
        stored.mean,
        stored.log_variance,
        scale,
        stored.labels,
        device,
        kl=kl,
    )
    few = stored.mean[torch.from_numpy(evenly_spaced(len(stored.mean), COLUMNS))].to(device)
    levels = draw_levels(folder, line.first_stage, few, scale, LEVELS_SEED)
    ways = draw_interpolations(folder, line.first_stage, stored.mean, scale, stored.labels, device)
    return {"traversals.png": caption, **ways, **levels}


@torch.inference_mode()
def _reconstructions(folder: Path, line: Line, rows: np.ndarray, device: torch.device) -> str:
    split = line.latents.split("test")
    stored = split.batch(rows)
    points = stored.codes if stored.codes is not None else stored.mean
    assert points is not None
    labels = None if stored.labels is None else stored.labels.to(device)
    pixels = line.first_stage.pixels(points.to(device), line.latents.spec.scale, labels)
    rebuilt = pixels.cpu().numpy()
    originals = np.array(line.prepared.split("test").images[split.index[rows]])
    strips = []
    for start in range(0, len(rows), COLUMNS):
        part = slice(start, start + COLUMNS)
        strips += [("original", originals[part]), ("rebuilt", rebuilt[part])]
    save_png(labelled_rows(strips), folder / "reconstructions.png")
    return "Test images, and below each what the first stage rebuilds of it."


def _samples(folder: Path, line: Line, per_class: int) -> str:
    samples = line.samples
    if samples.labels is None:
        shown = np.array(samples.images[: 10 * per_class])
        save_png(grid(shown, COLUMNS), folder / "samples.png")
        return "Samples, the first of the set."
    rows = []
    for label in np.unique(samples.labels):
        of_class = np.flatnonzero(samples.labels == label)[:per_class]
        rows.append((line.class_name(int(label)), np.array(samples.images[of_class])))
    save_png(labelled_rows(rows), folder / "samples.png")
    return "Samples, the first of each class, one class per row."


def _neighbours(folder: Path, line: Line, judgement: Judgement, count: int) -> str:
    train = line.prepared.split("train").images
    nearest = np.argsort(judgement.sample_distances[:, 0], kind="stable")[:count]
    rows = []
    for query in nearest:
        found = judgement.sample_neighbours[query]
        found = found[found >= 0]
        sample = judgement.queried_samples[query]
        images = np.concatenate([line.samples.images[sample : sample + 1], train[found]])
        rows.append((f"{judgement.sample_distances[query, 0]:.2f}", images))
    save_png(labelled_rows(rows), folder / "neighbours.png")
    return (
        "The samples nearest to a training image. Each row: distance to the nearest, in units of "
        "the median of test images (near 0: a copy); the sample; its nearest training images."
    )
