"""One row per level, each with that level alone drawn anew; nothing for models without levels."""

import numpy as np
import torch
from PIL import Image

from stages.assembly.first_stage import (
    FirstStageParams,
    build_first_stage,
    load_first_stage,
    save_first_stage,
)
from stages.core.artifacts import new_artifact
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.evaluation.levels import draw_levels
from tests.backbones.examples import conv
from tests.objectives.examples import ELBO

IMAGE = ImageShape(1, 8, 12)
HIERARCHY = {
    "kind": "hierarchical_vae",
    "grids": [1, 4],
    "groups": [1, 2],
    "widths": [6, 8],
    "blocks": 0,
    "posterior": "residual",
}


def first_stage(folder, autoencoder):
    sections = {
        "autoencoder": autoencoder,
        "backbone": conv([8], 0),
        "bottleneck": {"kind": "gaussian", "layout": "spatial", "channels": 2},
        "likelihood": {"kind": "gaussian", "sigma": "fixed", "value": 0.5, "decay": 0.9},
        "objective": ELBO,
    }
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    torch.manual_seed(0)
    model = build_first_stage(params, IMAGE)
    # Brighter, so that changes reach the eight bits.
    model.backbone.decoder.layers[-1].weight.data.mul_(30)
    with new_artifact(folder / "autoencoder", "autoencoder", {}) as building:
        save_first_stage(building, model, params, IMAGE)
    return load_first_stage(folder / "autoencoder", torch.device("cpu"))


def rows_of(picture, count):
    """Pixels of each row of images, without the captions."""
    pixels = np.asarray(Image.open(picture).convert("L"))
    return np.array_split(pixels[:, -100:], count)


def test_every_level_has_a_row_that_differs_from_the_first(tmp_path):
    first = first_stage(tmp_path, HIERARCHY)
    latents = first.autoencoder.encode(torch.rand(3, *IMAGE) * 2 - 1).mean
    shown = draw_levels(tmp_path, first, latents * 2, 2.0, seed=4)
    assert list(shown) == ["levels.png"]
    rows = rows_of(tmp_path / "levels.png", 4)
    height = min(len(row) for row in rows)
    for index, row in enumerate(rows[1:], start=1):
        assert not np.array_equal(row[:height], rows[0][:height]), index
    before = (tmp_path / "levels.png").read_bytes()
    draw_levels(tmp_path, first, latents * 2, 2.0, seed=4)
    assert (tmp_path / "levels.png").read_bytes() == before


def test_a_flat_autoencoder_has_no_levels(tmp_path):
    first = first_stage(tmp_path, {"kind": "flat"})
    latents = first.autoencoder.encode(torch.rand(3, *IMAGE) * 2 - 1).mean
    assert draw_levels(tmp_path, first, latents, 1.0, seed=4) == {}
    assert not (tmp_path / "levels.png").exists()
