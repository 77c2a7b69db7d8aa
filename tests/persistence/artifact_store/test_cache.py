from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from persistence.artifact_store.s3.cache import BlobCache


def put(cache: BlobCache, data: bytes, used_before: float = 0) -> str:
    cache.make()
    file = cache.temporary()
    file.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    path = cache.adopt(file, sha256)
    used = time.time() - used_before
    os.utime(path, (used, used))
    return sha256


def test_the_least_recently_used_leave_first(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", max_bytes=300)
    old, older, used = (
        put(cache, name * 100, used_before=before)
        for name, before in ((b"a", 1000), (b"b", 2000), (b"c", 3000))
    )
    assert cache.find(used) is not None  # which makes it the youngest
    put(cache, b"d" * 100)
    assert cache.find(older) is None
    assert cache.find(old) is not None


def test_what_was_asked_for_lately_stays_beyond_the_bound(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", max_bytes=0)
    first, second = put(cache, b"first"), put(cache, b"second", used_before=10_000)
    cache.evict()
    found = cache.find(first)
    assert found is not None
    assert found.read_bytes() == b"first"
    assert cache.find(second) is None


def test_a_copy_that_is_open_can_be_evicted(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", max_bytes=0)
    sha256 = put(cache, b"open", used_before=10_000)
    with (cache.folder / sha256).open("rb") as reader:
        cache.evict()
        assert reader.read() == b"open"
    assert cache.find(sha256) is None


def test_a_copy_cannot_be_written(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "cache", max_bytes=100)
    path = cache.find(put(cache, b"whole"))
    assert path is not None
    assert path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("name", ["incoming", "note.txt"])
def test_only_copies_are_evicted(tmp_path: Path, name: str) -> None:
    cache = BlobCache(tmp_path / "cache", max_bytes=0)
    cache.make()
    (cache.folder / name).mkdir(exist_ok=True)
    copy = put(cache, b"x", used_before=10_000)
    cache.evict()
    assert cache.find(copy) is None
    assert (cache.folder / name).exists()
