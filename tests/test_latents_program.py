"""`python -m stages.latents describe`: what a person asks of a latent folder."""

import numpy as np
import pytest

from stages.core.artifacts import new_artifact
from stages.latents import main
from stages.stores.latent_format import LatentHeader, column_types
from stages.stores.latent_shards import write_split

SHAPE = {"grid_height": 2, "grid_width": 3, "format": "latentline latents", "version": 1}
NAMES = {"autoencoder": "a" * 64, "prepared": "b" * 64, "first_stage": {}}
CODES = {"kind": "codes", "num_codes": 300, "channels": 0, "scale": 1.0}
CONTINUOUS = {"kind": "continuous", "num_codes": 0, "channels": 5, "scale": 0.25}


def written(path, kind, num_rows=4):
    header = LatentHeader(
        **SHAPE | NAMES | kind,
        deterministic=False,
        precision="float16",
        views=("identity", "horizontal_flip"),
        num_classes=2,
        class_names=("cat", "dog"),
    )

    def zeros(start, stop):
        return {
            name: np.zeros((stop - start, width) if width else stop - start, dtype)
            for name, (dtype, width) in column_types(header).items()
        }

    about = {"header": header.model_dump(mode="json"), "splits": {}}
    with new_artifact(path, "latents", about) as folder:
        for split, views in (("train", header.views), ("test", header.views[:1])):
            about["splits"][split] = {
                "images": num_rows // len(views),
                "rows": num_rows,
                "views": list(views),
                "shards": write_split(folder, split, header, num_rows, 3, zeros),
            }
        if kind is CODES:
            about["splits"]["train"] |= {"code_usage": 0.25, "code_perplexity": 42.0}
    return path


def test_codes_are_described(tmp_path, capsys):
    path = written(tmp_path / "latents", CODES)
    assert main(["describe", str(path), "--verify"]) == 0
    text = capsys.readouterr().out
    for part in (
        "codes on a 2x3 grid, alphabet of 300, as uint16",
        "2: cat, dog",
        "a" * 64,
        "b" * 64,
        "4 rows of 2 images (identity, horizontal_flip), ",
        "4 rows of 4 images (identity), ",
        "codes in use 25.0%, perplexity 42.0",
        "bytes in 2 file(s)",
        "every byte is as it was written",
    ):
        assert part in text


def test_several_grids_of_codes_are_told_apart(tmp_path, capsys):
    several = CODES | {"grid_height": 1, "grid_width": 15, "parts": ((1, 3), (3, 4))}
    path = written(tmp_path / "latents", several)
    assert main(["describe", str(path)]) == 0
    said = "codes on grids 1x3, 3x4 (parts), end to end in rows of 15, alphabet of 300, as uint16"
    assert said in capsys.readouterr().out


def test_continuous_latents_are_described(tmp_path, capsys):
    path = written(tmp_path / "latents", CONTINUOUS)
    assert main(["describe", str(path)]) == 0
    text = capsys.readouterr().out
    assert "continuous on a 2x3 grid, 5 channels, mean and log-variance as float16" in text
    assert "scale        0.25" in text
    assert "--verify" in text


def test_an_empty_split_is_described(tmp_path, capsys):
    path = written(tmp_path / "latents", CODES, num_rows=0)
    assert main(["describe", str(path), "--verify"]) == 0
    assert "0 rows of 0 images" in capsys.readouterr().out


def test_damage_is_found_by_verify(tmp_path, capsys):
    path = written(tmp_path / "latents", CODES)
    damaged = path / "test-00001-of-00002.parquet"
    content = bytearray(damaged.read_bytes())
    content[10] ^= 1
    damaged.write_bytes(content)
    assert main(["describe", str(path)]) == 0
    assert main(["describe", str(path), "--verify"]) == 1
    assert f"{damaged}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["nothing", "file", "empty folder", "other artifact", "list"])
def test_a_wrong_path_is_one_message(tmp_path, capsys, what):
    path = tmp_path / "path"
    if what == "file":
        path.write_text("hello")
    elif what == "empty folder":
        path.mkdir()
    elif what == "list":
        path.mkdir()
        (path / "manifest.json").write_text("[1, 2]")
    elif what == "other artifact":
        with new_artifact(path, "prepared", {}):
            pass
    assert main(["describe", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert str(path) in captured.err and "Traceback" not in captured.err
