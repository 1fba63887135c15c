"""What somebody who means harm puts into a folder or an archive is named and never read."""

import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from stages.files.file_trees import TreeFile, Unreadable, open_tree


def listed(path: Path) -> dict[str, TreeFile]:
    with open_tree(str(path)) as files:
        return {file.name: file for file in files}


def forged(path: Path, content: bytes, claimed: int) -> Path:
    """An archive with one member that claims another size than it has."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", content)
    whole = bytearray(path.read_bytes())
    directory = whole.index(b"PK\1\2")
    for place in (22, directory + 24):
        whole[place : place + 4] = struct.pack("<I", claimed)
    path.write_bytes(whole)
    return path


def test_links_out_of_the_folder_are_refused_and_inside_it_followed(tmp_path: Path) -> None:
    root = tmp_path / "images"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "a" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "a" / "device.png").symlink_to("/dev/zero")
    (root / "a" / "inside.png").symlink_to(root / "a" / "x.png")
    os.mkfifo(root / "a" / "pipe.png")
    found = {name: file.problem for name, file in listed(root).items()}
    assert found == {
        "a/device.png": "a link out of the folder",
        "a/inside.png": None,
        "a/out.png": "a link out of the folder",
        "a/pipe.png": "not a regular file",
        "a/x.png": None,
    }
    entry = tmp_path / "entry"
    entry.symlink_to(root)
    assert listed(entry)["a/x.png"].problem is None, "the folder itself may be a link"


def test_names_are_escaped_where_they_could_deceive(tmp_path: Path) -> None:
    (tmp_path / "a\nERROR: all is lost.png").write_bytes(b"")
    (tmp_path / "b\x1b]0;title\x07.png").write_bytes(b"")
    (tmp_path / "c\u202egnp.exe").write_bytes(b"")
    (tmp_path / os.fsdecode(b"d\xff.png")).write_bytes(b"")
    (tmp_path / "Blüte 1.png").write_bytes(b"")
    names = list(listed(tmp_path))
    assert names == [
        "Blüte 1.png",
        "a\\nERROR: all is lost.png",
        "b\\x1b]0;title\\x07.png",
        "c\\u202egnp.exe",
        "d\\udcff.png",
    ]
    assert all(name.isprintable() for name in names)


def test_a_member_that_claims_to_be_huge_is_named(tmp_path: Path) -> None:
    file = listed(forged(tmp_path / "a.zip", b"x" * 100, 2**31))["a.png"]
    assert file.problem is not None and "a zip bomb" in file.problem


def test_a_member_that_hides_its_size_is_not_unpacked(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.zip", bytes(2**26), 10)
    with open_tree(str(path)) as (file,):
        assert file.problem is None and file.size == 10
        tracemalloc.start()
        with pytest.raises(Unreadable):
            file.read()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 2**22


def test_members_that_share_bytes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.png", "b.png", "c.png"):
            archive.writestr(name, b"x" * 100)
        archive.filelist[1].header_offset = archive.filelist[0].header_offset + 50
    problems = {name: file.problem for name, file in listed(path).items()}
    assert problems["c.png"] is None
    for name in ("a.png", "b.png"):
        assert problems[name] == "it shares bytes with another member, as in a zip bomb"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_cannot_be_stopped_in_the_middle_are_refused(
    tmp_path: Path, method: int
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", bytes(2**20))
    problem = listed(path)["a.png"].problem
    assert problem is not None and f"compressed by method {method}" in problem


def test_whole_members_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(2**20))
        archive.writestr("empty.png", b"")
    with open_tree(str(path)) as files:
        assert [(file.problem, file.read()) for file in files] == [
            (None, b""),
            (None, bytes(2**20)),
        ]
