"""The network of FID: torch-fidelity's, and clear words where it is not to be had."""

import sys

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from stages.extractors import inception
from stages.extractors.inception import MODULE, Inception, InceptionOptions, build_inception
from tests.extractors.examples import CPU, random_inception

IMAGE = ImageShape(1, 24, 40)


def test_weights_are_read_into_torch_fidelitys_network(tmp_path, monkeypatch):
    theirs = random_inception()
    path = tmp_path / inception.FILE
    torch.save(theirs.state_dict(), path)
    checksum = inception.require_published(path, ("",), "test")
    monkeypatch.setattr(inception, "KNOWN", (checksum,))
    options = InceptionOptions(kind="inception", weights=str(path))
    network = Inception.open(options, IMAGE, CPU)
    assert network.checksum == checksum
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, *IMAGE), dtype=torch.uint8, generator=draw)
    features, logits = network.features(pixels)
    expected, unbiased = theirs(pixels.repeat(1, 3, 1, 1))
    assert torch.equal(features, expected) and torch.equal(logits, unbiased)
    assert "24x40 to 299x299" in network.rule(IMAGE).resize


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(ParamsError, match="torch-fidelity, which is not installed"):
        build_inception({})


def test_the_name_of_the_file_and_its_checksum_agree():
    assert inception.KNOWN[0].startswith(inception.FILE.removesuffix(".pth").rpartition("-")[2])
