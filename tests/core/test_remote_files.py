"""Files of a store are listed, fetched once, and kept in a folder that never outgrows its bound."""

import os
import threading

import fsspec
import pytest

from stages.core.errors import DataError
from stages.core.remote_files import RemoteCache, is_url, list_remote, open_cache


@pytest.fixture
def store():
    """Six files of 100 bytes each, in fsspec's store in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name in "abcdef":
        system.pipe_file(f"/box/deep/{name}.bin", name.encode() * 100)
    yield system
    system.store.clear()


def kept(cache):
    return sorted(path for path in cache.folder.glob("??/*"))


def test_a_listing_names_files_below_the_folder(store):
    files = list_remote("memory://box/deep")
    assert [file.name for file in files] == [f"{name}.bin" for name in "abcdef"]
    assert {file.size for file in files} == {100}
    assert list_remote("memory://box")[0].name == "deep/a.bin"
    assert [file.name for file in list_remote("memory://box/deep/a.bin")] == ["a.bin"]


def test_the_bound_holds_and_what_was_not_asked_for_the_longest_goes(store, tmp_path):
    cache, files = RemoteCache(tmp_path / "cache", 350), list_remote("memory://box")
    paths = {}
    for index, file in enumerate(files[:3]):
        paths[file.name] = cache.fetch(file)
        os.utime(paths[file.name], (index, index))
    assert cache.fetch(files[0]) == paths["deep/a.bin"]
    cache.fetch(files[3])
    assert paths["deep/a.bin"].exists() and not paths["deep/b.bin"].exists()
    for file in files:
        assert cache.read(file) == file.name[-5].encode() * 100
        assert sum(path.stat().st_size for path in kept(cache)) <= 350


def test_a_file_in_use_is_not_removed(store, tmp_path):
    cache, files = RemoteCache(tmp_path / "cache", 200), list_remote("memory://box")
    mine = cache.fetch(files[0])
    os.utime(mine, (0, 0))
    threads = [threading.Thread(target=cache.fetch, args=(file,)) for file in files[1:]]
    for thread in threads:
        thread.start()
        thread.join()
    assert mine.read_bytes() == b"a" * 100


def test_a_file_is_fetched_once_and_again_when_it_changed(store, tmp_path):
    cache = RemoteCache(tmp_path / "cache", 1000)
    [file] = list_remote("memory://box/deep/a.bin")
    path = cache.fetch(file)
    path.write_bytes(b"kept")
    assert cache.read(file) == b"kept"
    store.pipe_file("/box/deep/a.bin", b"longer" * 50)
    assert cache.read(list_remote("memory://box/deep/a.bin")[0]) == b"longer" * 50


def test_what_cannot_be_had_is_told(store, tmp_path, monkeypatch):
    cache = RemoteCache(tmp_path / "cache", 99)
    [file] = list_remote("memory://box/deep/a.bin")
    with pytest.raises(DataError, match="100 bytes must fit into the cache of 99"):
        cache.fetch(file)
    store.rm_file("/box/deep/a.bin")
    cache.limit = 1000
    with pytest.raises(DataError, match="cannot be read: FileNotFoundError"):
        cache.fetch(file)
    assert kept(cache) == []
    with pytest.raises(DataError, match="missing; a folder or a file must be there"):
        list_remote("memory://nowhere")
    with pytest.raises(DataError, match="no kind of store that is known"):
        list_remote("nosuchthing://box")
    monkeypatch.setenv("LATENTLINE_CACHE_BYTES", "many")
    with pytest.raises(DataError, match="must be a number of bytes, is 'many'"):
        open_cache()


def test_paths_are_no_urls():
    assert is_url("s3://bucket/images") and not is_url("/data/images") and not is_url("images")
