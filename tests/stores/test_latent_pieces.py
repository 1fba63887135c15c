"""A piece is there whole or it is missing: what was damaged is made again."""

from pathlib import Path

import numpy as np
import pytest

from stages.stores.latent_pieces import LatentPieces


@pytest.fixture
def pieces(tmp_path: Path) -> LatentPieces:
    made = LatentPieces(tmp_path / "pieces", num_images=10, images_per_piece=4, num_views=1)
    for piece in range(3):
        made.write(piece, {"codes": np.full((len(made.images(piece)), 5), piece, np.uint8)})
    assert made.missing() == []
    return made


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_flipped_bit(
    pieces: LatentPieces, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pieces.folder / "00000001.safetensors"
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    assert pieces.missing() == [1]
    assert f"{path}: damaged piece, made again" in capsys.readouterr().err


def test_a_cut_piece(pieces: LatentPieces) -> None:
    path = pieces.folder / "00000002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert pieces.missing() == [2]
