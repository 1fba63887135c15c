"""What every feature network promises."""

import pytest
import torch

from stages.core.errors import LatentlineError
from stages.core.sections import load_member
from stages.core.shapes import ImageShape
from stages.extractors.base import Extractor, ExtractorOptions
from stages.registry import FAMILIES
from tests.extractors.examples import CPU, make

COLOURS, GREY = ImageShape(3, 20, 36), ImageShape(1, 20, 36)


def draw(image: ImageShape, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *image), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", FAMILIES["extractors"])
def test_every_image_has_its_features_whatever_stands_beside_it(kind, tmp_path):
    network, pixels = make(kind, tmp_path, COLOURS), draw(COLOURS)
    features, logits = network.features(pixels)
    assert features.shape == (2, network.feature_dim) and features.isfinite().all()
    assert (logits is None) == (network.num_classes == 0)
    assert logits is None or logits.shape == (2, network.num_classes)
    alone, _ = network.features(pixels[1:2])
    torch.testing.assert_close(features[1:2], alone, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    assert network.images_at_once(COLOURS) >= 1
    assert network.rule(COLOURS).grey == "none"


def test_only_inception_gives_fid(tmp_path):
    kinds = set(FAMILIES["extractors"]) - {"inception"}
    names = {kind: make(kind, tmp_path / kind, COLOURS).distance_name for kind in kinds}
    assert names == {kind: f"frechet_{kind}" for kind in kinds}
    assert load_member(Extractor, "inception").distance_name == "fid"


@pytest.mark.parametrize("kind", sorted({*FAMILIES["extractors"]} - {"classifier", "inception"}))
def test_grey_images_are_three_equal_channels(kind, tmp_path):
    network, pixels = make(kind, tmp_path, GREY), draw(GREY, 2)
    grey, _ = network.features(pixels)
    colours, _ = network.features(pixels.repeat(1, 3, 1, 1))
    torch.testing.assert_close(grey, colours)
    assert network.rule(GREY).grey == "repeated to three channels"


@pytest.mark.parametrize("kind", FAMILIES["extractors"])
def test_weights_that_are_not_there_or_not_the_right_ones_are_refused(kind, tmp_path):
    def opened(path, image=COLOURS):
        options = ExtractorOptions.of_kind(kind)(kind=kind, weights=str(path))
        return load_member(Extractor, kind).open(options, image, CPU)

    with pytest.raises(LatentlineError, match="no such file|must be here"):
        opened(tmp_path / "absent")
    if kind != "classifier":
        other = tmp_path / "other.pth"
        other.write_bytes(b"something else")
        with pytest.raises(LatentlineError, match="sha256 must begin with .*, is "):
            opened(other)
        with pytest.raises(LatentlineError, match="2 channels"):
            opened(other, ImageShape(2, 20, 36))


def test_the_code_of_a_network_is_known_by_its_sources(tmp_path):
    networks = [
        make(kind, tmp_path / kind, COLOURS) for kind in ("mobilenet_v2", "resnet56_cifar10")
    ]
    again = make("mobilenet_v2", tmp_path / "again", COLOURS)
    assert networks[0].code_digest == again.code_digest != networks[1].code_digest
