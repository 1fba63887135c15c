"""Images survive their file bit for bit, at the computed price, and nothing else decodes it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.assembly.first_stage import FirstStage, load_first_stage
from stages.assembly.second_stage import SecondStage, load_second_stage
from stages.coding.coded_file import open_coded, write_coded
from stages.coding.line_coder import CodedGroup, LineCoder
from stages.core.errors import ArtifactError, DataError, ParamsError
from stages.core.intensities import from_pixels
from tests.evaluation.tiny_line import CODES, CONTINUOUS, CPU, IMAGE, POINTS, make_line, make_prior

NAMES = ["zero", "one", "two & more"]
COUNT = 150
"""Two whole groups of 64 and a part of one."""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_line(folder, CODES, NAMES)
    return folder


def stages_of(folder: Path) -> tuple[FirstStage, SecondStage]:
    first = load_first_stage(folder / "data/autoencoder", CPU)
    return first, load_second_stage(folder / "data/prior", CPU)


def coder_of(folder: Path) -> LineCoder:
    return LineCoder(*stages_of(folder), CPU)


def images(count: int = COUNT, with_labels: bool = True) -> list[CodedGroup]:
    random = np.random.default_rng(4)
    pixels = torch.from_numpy(random.integers(0, 256, (count, *IMAGE), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 3, count)) if with_labels else None
    cut = range(0, count, 64)
    return [
        CodedGroup(pixels[i : i + 64], None if labels is None else labels[i : i + 64]) for i in cut
    ]


def computed_bits(coder: LineCoder, groups: list[CodedGroup]) -> float:
    """-log2 p of labels, codes and pixels in one pass, without the coder."""
    nats = 0.0
    for group in groups:
        codes = coder.first.autoencoder.encode(from_pixels(group.pixels))
        parameters = coder.first.parameters(codes, 1.0)
        likelihood = coder.first.autoencoder.likelihood
        nats -= likelihood.log_prob(from_pixels(group.pixels), parameters).sum().item()
        nats -= coder.second.prior.log_prob(codes, group.labels).sum().item()
        nats += 0.0 if group.labels is None else len(group.labels) * np.log(3)
    return nats / np.log(2)


@pytest.mark.parametrize("with_labels", [True, False])
def test_images_come_back_bit_for_bit_at_the_computed_price(
    line: Path, tmp_path: Path, with_labels: bool
) -> None:
    groups, path = images(with_labels=with_labels), tmp_path / "images.coded"
    write_coded(path, coder_of(line), groups)
    # A decoder that has seen nothing but the file and the artifacts.
    file = open_coded(path)
    found = list(file.groups(coder_of(line)))
    assert file.header.count == COUNT and file.header.labels == with_labels
    for given, back in zip(groups, found, strict=True):
        assert torch.equal(back.pixels, given.pixels)
        assert (back.labels is None) if given.labels is None else torch.equal(*_labels(given, back))
    expected = computed_bits(coder_of(line), groups)
    assert 8 * len(file.payload) == pytest.approx(expected, rel=0.01)
    assert file.size == path.stat().st_size


def _labels(given: CodedGroup, back: CodedGroup) -> tuple[torch.Tensor, torch.Tensor]:
    return given.labels, back.labels


def test_no_images_are_a_file_too(line: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.coded"
    write_coded(path, coder_of(line), [])
    assert list(open_coded(path).groups(coder_of(line))) == []


def test_equal_images_give_equal_files(line: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_coded(tmp_path / name, coder_of(line), images(9))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_prior_is_refused_and_both_are_named(line: Path, tmp_path: Path) -> None:
    path = tmp_path / "images.coded"
    write_coded(path, coder_of(line), images(5))
    other = tmp_path / "other"
    shutil.copytree(line, other)
    torch.manual_seed(99)
    make_prior(other, CODES, NAMES)
    with pytest.raises(DataError, match="prior") as refused:
        list(open_coded(path).groups(coder_of(other)))
    mine, theirs = coder_of(line).second.artifact.digest, coder_of(other).second.artifact.digest
    assert mine in str(refused.value) and theirs in str(refused.value)


def test_a_prior_of_another_autoencoder_is_refused(line: Path) -> None:
    first, second = stages_of(line)
    foreign = SecondStage(**{**vars(second), "autoencoder_digest": "0" * 64})
    with pytest.raises(ArtifactError, match="0" * 64):
        LineCoder(first, foreign, CPU)


@pytest.mark.parametrize("damage", ["cut", "one byte", "longer", "header", "empty", "other file"])
def test_a_damaged_file_is_one_message(line: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "images.coded"
    write_coded(path, coder_of(line), images(5))
    content = bytearray(path.read_bytes())
    if damage == "one byte":
        content[-9] ^= 4
    elif damage == "header":
        content[20] ^= 0xFF
    path.write_bytes(
        {
            "cut": content[:-7],
            "longer": content + b"more",
            "empty": b"",
            "other file": b"PNG and so on",
        }.get(damage, bytes(content))
    )
    with pytest.raises(DataError, match="images.coded: "):
        open_coded(path)


def test_no_file_is_one_message(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="is none"):
            open_coded(path)


def test_other_probabilities_are_found_out(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images.coded"
    write_coded(path, coder_of(line), images(5))
    elsewhere = coder_of(line)
    with torch.no_grad():
        next(elsewhere.second.prior.parameters()).add_(0.5)
    with pytest.raises(DataError, match="computed by torch"):
        list(open_coded(path).groups(elsewhere))


@pytest.mark.parametrize("system", [CONTINUOUS, POINTS])
def test_what_is_no_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: dict
) -> None:
    monkeypatch.chdir(tmp_path)
    make_line(tmp_path, system, None)
    with pytest.raises(ParamsError, match="only codes are coded"):
        coder_of(tmp_path)


def test_a_prior_that_skips_codes_is_refused(
    line: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    coder = coder_of(line)

    def all_zero(labels, uniforms, settings):
        spec = coder.second.prior.spec
        return torch.zeros(len(uniforms), spec.grid_height, spec.grid_width, dtype=torch.int64)

    monkeypatch.setattr(coder.second.prior, "sample", all_zero)
    with pytest.raises(ParamsError, match="does not say what to expect"):
        write_coded(tmp_path / "file", coder, images(3))
    assert not list(tmp_path.iterdir())
