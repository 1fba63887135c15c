"""Looks from inside agree with each other, whatever the line stores."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.core.errors import ParamsError
from stages.serving.line import OpenedLine
from stages.serving.looks import code_shares, exchanged, moved, of_one_code, rebuilt, way
from tests.serving.lines import NAMES, opened


@pytest.fixture(scope="module")
def codes(codes_line: Path) -> OpenedLine:
    return opened(codes_line)


@pytest.fixture(scope="module")
def continuous(continuous_line: Path) -> OpenedLine:
    return opened(continuous_line)


def test_test_images_and_classes_are_those_prepared(codes: OpenedLine, codes_line: Path) -> None:
    images = np.load(codes_line / "data/prepared/test/images.npy")
    shown = codes.test_picture(4)
    np.testing.assert_array_equal(shown.pixels, images[4])
    assert (shown.label, codes.class_names) == (1, NAMES)


@pytest.mark.parametrize("which", ["codes", "continuous"])
def test_the_way_begins_and_ends_at_the_rebuilt_images(
    which: str, request: pytest.FixtureRequest
) -> None:
    line = request.getfixturevalue(which)
    start, end = line.test_picture(0), line.test_picture(5)
    images = way(line, start, end)
    np.testing.assert_array_equal(images[0], rebuilt(line, start)[0])
    np.testing.assert_array_equal(images[-1], rebuilt(line, end)[0])
    assert len(images) == 8


def test_of_one_code_and_of_one_cell(codes: OpenedLine) -> None:
    picture = codes.test_picture(3)
    own = codes.latents([picture]).flatten().numpy()
    every = np.arange(7)
    images = exchanged(codes, picture, 2, every)
    np.testing.assert_array_equal(images[own[2]], rebuilt(codes, picture)[0])
    alone = of_one_code(codes, picture, slice(0, len(own)), every)
    uniform = codes.decoded(torch.full_like(codes.latents([picture]), 4), picture.label)
    np.testing.assert_array_equal(alone[4], uniform[0])
    counts = np.bincount(own, minlength=7)
    np.testing.assert_allclose(code_shares(codes, [picture]), counts / len(own))


def test_one_dimension_moves_from_its_mean_and_no_other(continuous: OpenedLine) -> None:
    picture = continuous.test_picture(2)
    offsets, images = moved(continuous, picture, 3, 2.0, 5)
    np.testing.assert_allclose(offsets, [-2, -1, 0, 1, 2])
    latents = continuous.latents([picture]).flatten(1).clone()
    told = continuous.dimensions
    latents[:, 3] = told.mean.flatten()[3] + 2 * told.deviation.flatten()[3]
    shape = continuous.latents([picture]).shape
    np.testing.assert_array_equal(
        images[-1], continuous.decoded(latents.view(shape), picture.label)[0]
    )
    assert told.unit == "nats" and (told.carried >= 0).all() and (told.deviation > 0).all()


def test_without_test_images_the_models_still_serve(codes_line: Path, tmp_path: Path) -> None:
    for part in ("autoencoder", "prior"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / part).symlink_to(codes_line / "data" / part)
    assert opened(tmp_path).test is None


def test_codes_in_several_grids_are_not_blended(codes: OpenedLine, monkeypatch) -> None:
    monkeypatch.setattr("stages.serving.looks.Flat", type("Other", (), {}))
    with pytest.raises(ParamsError, match="cannot be blended"):
        way(codes, codes.test_picture(0), codes.test_picture(1))
