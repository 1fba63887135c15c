"""A person's own files: every good one is used, every bad one is named with its reason."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core.errors import DataError
from stages.datasets.base import ImageBlock, Rejected
from stages.datasets.image_folder import ImageFolder, ImageFolderOptions

OPTIONS: dict[str, Any] = {
    "kind": "image_folder",
    "watch": "data/README.md",
    "validation_fraction": 0.1,
    "test_fraction": 0.1,
    "resolution": 8,
    "channels": 3,
    "filter": "box",
    "background": "white",
    "on_bad_file": "skip",
}


def plain(colour: Any = (200, 100, 50), mode: str = "RGB", size: Any = (8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def encoded(image: Image.Image, format: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **more)
    return buffer.getvalue()


def huge_png() -> bytes:
    """Declares 60,000 x 60,000 pixels in under a hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def film(format: str) -> bytes:
    frames = [plain(n, "L") for n in (10, 200, 90)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


GOOD = {"a/1.png": encoded(plain()), "b/deep/2.png": encoded(plain((1, 2, 3)))}
BAD = {
    "a/animated.gif": (film("GIF"), "a film or a stack of 3 pictures"),
    "a/empty.png": (b"", "empty"),
    "a/float.tiff": (encoded(plain(0.5, "F"), "TIFF"), "range of values is not known"),
    "a/huge.png": (huge_png(), "too many pixels"),
    "a/misnamed.jpg": (encoded(plain()), "mis-named: holds PNG, but is called .jpg"),
    "a/nonsense.png": (b"nonsense" * 40, "no image format"),
    "a/pages.tif": (film("TIFF"), "a stack of 3 pictures"),
    "b/suffix.dat": (encoded(plain()), "mis-named"),
    "b/truncated.jpg": (
        encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG")[:700],
        "damaged",
    ),
}
OTHER = {
    ".hidden/x.png": (GOOD["a/1.png"], "hidden"),
    "ATTRIBUTION.txt": (b"by somebody\n", "not named as an image"),
    "b/.DS_Store": (b"\0\0", "hidden"),
}


def write(path: Path, files: dict[str, bytes]) -> Path:
    """A folder, or an archive where the path ends so."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def read(path: Path, **changes: Any) -> tuple[ImageBlock, ImageFolder, list[Rejected]]:
    source = ImageFolder(ImageFolderOptions(**OPTIONS | {"path": str(path)} | changes))
    rejected: list[Rejected] = []
    (block,) = source.blocks(rejected)
    return block, source, rejected


def one(tmp_path: Path, content: bytes, name: str = "x.png", **changes: Any) -> np.ndarray:
    return read(write(tmp_path / "one", {name: content}), **changes)[0].images[0]


@pytest.mark.parametrize("name", ["folder", "archive.zip"])
def test_bad_files_are_left_out_and_named(tmp_path: Path, name: str) -> None:
    others = BAD | OTHER
    files = GOOD | {name: content for name, (content, _) in others.items()}
    block, source, rejected = read(write(tmp_path / name, files))
    assert source.class_names() == ["a", "b"]
    assert block.labels is not None and block.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(block.images[1, :, 4, 4], [1, 2, 3])
    assert sorted(item.path for item in rejected) == sorted(others)
    for item in rejected:
        assert others[item.path][1] in item.reason, item


@pytest.mark.parametrize("name", ["folder", "archive.zip"])
def test_bad_files_fail_together(tmp_path: Path, name: str) -> None:
    bad = {name: content for name, (content, _) in BAD.items()}
    with pytest.raises(DataError, match=r"9 are not; .*on_bad_file: skip") as caught:
        read(write(tmp_path / name, GOOD | bad), on_bad_file="fail")
    for path in BAD:
        assert f"  {path}: " in str(caught.value)


def test_notes_beside_the_images_are_no_failure(tmp_path: Path) -> None:
    other = {name: content for name, (content, _) in OTHER.items()}
    _, _, rejected = read(write(tmp_path, GOOD | other), on_bad_file="fail")
    assert len(rejected) == len(OTHER)


def test_a_long_list_of_bad_files_ends_in_a_count(tmp_path: Path) -> None:
    files = {f"{number:03}.png": b"" for number in range(25)}
    with pytest.raises(DataError, match=r"25 are not") as caught:
        read(
            write(tmp_path, GOOD | {f"a/{name}": c for name, c in files.items()}) / "a",
            on_bad_file="fail",
        )
    assert str(caught.value).endswith("... and 5 more")


def test_folder_and_archive_agree(tmp_path: Path) -> None:
    folder, _, _ = read(write(tmp_path / "folder", GOOD))
    for prefix in ("", "wrapped/twice/"):
        files = {prefix + name: content for name, content in reversed(GOOD.items())}
        archive, source, _ = read(write(tmp_path / "archive.zip", files))
        np.testing.assert_array_equal(folder.images, archive.images)
        np.testing.assert_array_equal(folder.labels, archive.labels)
        assert source.class_names() == ["a", "b"]


def test_side_by_side_means_no_classes(tmp_path: Path) -> None:
    block, source, _ = read(
        write(tmp_path, {"x/1.png": GOOD["a/1.png"], "x/2.png": b"", "n.txt": b"n"})
    )
    assert source.class_names() is None and block.labels is None


def test_a_mixture_of_both_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"either all images lie in class folders.*such as c\.png"):
        read(write(tmp_path, GOOD | {"c.png": GOOD["a/1.png"]}))


@pytest.mark.parametrize("files", [{}, {"a.txt": b"x"}, {"a.png": b""}])
def test_nothing_usable_is_an_error(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="holds none that can be used"):
        read(write(tmp_path, files))


def test_a_path_that_is_neither_folder_nor_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: missing; a folder or a zip archive"):
        read(tmp_path / "nowhere")
    (tmp_path / "cut.zip").write_bytes(write(tmp_path / "whole.zip", GOOD).read_bytes()[:60])
    with pytest.raises(DataError, match=r"cut\.zip: must be a folder or a whole zip archive"):
        read(tmp_path / "cut.zip")


def test_members_of_an_archive_that_lie_outside_or_are_damaged(tmp_path: Path) -> None:
    outside = {name: GOOD["a/1.png"] for name in ("../up.png", "/root.png", "c:\\drive.png")}
    path = write(tmp_path / "archive.zip", GOOD | outside | {"b/zz.png": bytes(range(256))})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("b/zz.png").header_offset
    content[start + 60] ^= 0xFF
    path.write_bytes(content)
    block, _, rejected = read(path)
    assert len(block.images) == 2
    reasons = {item.path: item.reason for item in rejected}
    assert reasons.pop("b/zz.png").startswith("damaged in the archive")
    assert len(reasons) == 3 and set(reasons.values()) == {"its path points outside the archive"}


def test_links_to_folders_are_named_not_followed(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "gone")
    _, _, rejected = read(tmp_path)
    assert {item.path: item.reason for item in rejected} == {
        "a/circle": "a link to a folder, which is not followed",
        "a/gone.png": "a link to nothing",
    }


def test_the_centre_square_is_kept(tmp_path: Path) -> None:
    wide = plain("black", size=(24, 8))
    wide.paste((255, 0, 0), (8, 0, 16, 8))
    image = one(tmp_path, encoded(wide))
    assert (image[0] == 255).all() and not image[1:].any()


def test_shrinking_averages(tmp_path: Path) -> None:
    board = Image.fromarray((np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8))
    for filter in ("box", "bilinear", "bicubic", "lanczos"):
        assert np.abs(one(tmp_path, encoded(board), filter=filter).astype(int) - 127).max() <= 2
    assert set(np.unique(one(tmp_path, encoded(board), filter="nearest"))) <= {0, 255}


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = plain("black")
    image.paste((255, 255, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned clockwise: the upper half goes to the right.
    turned = one(tmp_path, encoded(image, exif=exif.tobytes()))
    assert (turned[:, :, 4:] == 255).all() and not turned[:, :, :4].any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_the_background(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        image, more = plain(0, "P"), {"transparency": 0}
        image.putpalette([9, 9, 9])
    else:
        image, more = plain((9,) * (len(mode) - 1) + (0,), mode), {}
    pixel = one(tmp_path, encoded(image, **more), background="#102030")[:, 4, 4]
    assert pixel.tolist() == [0x10, 0x20, 0x30]
    half = one(tmp_path, encoded(plain((0, 0, 0, 51), "RGBA")), background="white")
    assert half[:, 4, 4].tolist() == [204] * 3


@pytest.mark.parametrize(
    ("mode", "colour", "value"), [("1", 1, 255), ("L", 77, 77), ("I;16", 257 * 77, 77)]
)
def test_grey_stays_grey_in_one_channel_and_in_three(
    tmp_path: Path, mode: str, colour: int, value: int
) -> None:
    content = encoded(plain(colour, mode))
    for channels in (1, 3):
        image = one(tmp_path, content, channels=channels)
        assert image.shape == (channels, 8, 8) and (image == value).all()


def test_colour_becomes_luma(tmp_path: Path) -> None:
    assert one(tmp_path, encoded(plain((255, 0, 0))), channels=1)[0, 0, 0] == 76


@pytest.mark.parametrize(
    ("format", "name"),
    [("JPEG", "x.JPEG"), ("JPEG", "x.jfif"), ("BMP", "x.bmp"), ("WEBP", "x.webp"),
     ("TIFF", "x.tif"), ("GIF", "x.gif"), ("PPM", "x.ppm"), ("PNG", "noname"), ("MPO", "x.jpg")],
)  # fmt: skip
def test_formats_and_names(tmp_path: Path, format: str, name: str) -> None:
    more = {"save_all": True, "append_images": [plain()]} if format == "MPO" else {}
    image = one(tmp_path, encoded(plain((120, 120, 120)), format, **more), name)
    assert np.abs(image.astype(int) - 120).max() <= 2


def test_provenance_follows_the_bytes(tmp_path: Path) -> None:
    first = read(write(tmp_path, GOOD))[1].provenance()
    second = read(write(tmp_path, {"a/1.png": encoded(plain((0, 0, 0)))}))[1].provenance()
    assert first["files"] == second["files"] == 2 and first["sha256"] != second["sha256"]


def test_real_flowers(shared_data: Path) -> None:
    path = shared_data / "flowers_ccby_128" / "flowers_ccby_128.zip"
    source = ImageFolder(ImageFolderOptions(**OPTIONS | {"path": str(path), "resolution": 128}))
    first = next(iter(source.blocks([])))
    assert source.class_names() == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    assert first.images.shape[1:] == (3, 128, 128) and set(first.labels.tolist()) == {0}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_random_damage_is_a_reason_or_an_image_and_never_a_crash(
    tmp_path: Path, format: str
) -> None:
    numbers = np.random.default_rng(0)
    whole = encoded(Image.fromarray(numbers.integers(0, 256, (8, 8, 3), np.uint8)), format)
    files = {f"whole.{format.lower()}": whole}
    for number in range(40):
        content = bytearray(whole)
        for place in numbers.integers(0, len(content), 4):
            content[place] = numbers.integers(0, 256)
        cut = numbers.integers(len(content) // 2, len(content) + 1)
        files[f"{number}.{format.lower()}"] = bytes(content[:cut])
    block, _, rejected = read(write(tmp_path, files))
    assert len(block.images) + len(rejected) == 41 and len(rejected) > 0
