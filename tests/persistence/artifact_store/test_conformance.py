"""What every store does. Each test runs on a folder and on a bucket."""

from __future__ import annotations

import hashlib
import io
import math
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from persistence.artifact_store import (
    ArtifactStore,
    BlobDamaged,
    StoredBlob,
    fetch_file,
    store_file,
)
from tests.persistence.artifact_store.store_world import StoreWorld

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


def noise(size: int) -> bytes:
    """Bytes without a pattern, the same ones on every run."""
    return np.random.default_rng(1).bytes(size)


def stored(store: ArtifactStore, data: bytes) -> StoredBlob:
    return store_file(store, io.BytesIO(data))


def test_a_committed_blob_is_found_by_its_hash(world: StoreWorld) -> None:
    store = world.store
    store.check()
    with store.open_writer() as writer:
        writer.write(DATA[:10])
        writer.write(DATA[10:])
        assert writer.bytes_written == len(DATA)
        assert not store.exists(SHA256)
        blob = writer.commit()
    assert (blob.sha256, blob.bytes) == (SHA256, len(DATA))
    assert store.exists(SHA256)
    assert store.size(SHA256) == len(DATA)
    assert store.path(SHA256).read_bytes() == DATA
    assert list(store.blobs()) == [SHA256]
    assert world.names() == [SHA256]


def test_a_reader_goes_anywhere(store: ArtifactStore) -> None:
    data = noise(3 << 20)
    sha256 = stored(store, data).sha256
    with store.open(sha256) as source:
        assert source.seekable()
        assert source.seek(0, io.SEEK_END) == len(data)
        assert source.read(1) == b""
        for start in (7, len(data) - 5, 0, 1 << 20, (1 << 20) - 3):
            assert source.seek(start) == start
            assert source.read(10) == data[start : start + 10]
            assert source.tell() == min(start + 10, len(data))
        source.seek(-4, io.SEEK_CUR)
        source.seek(0)
        assert source.read() == data


def test_an_uncommitted_writer_leaves_nothing(world: StoreWorld) -> None:
    def upload_half() -> None:
        with world.store.open_writer() as writer:
            writer.write(DATA)
            raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        upload_half()
    assert world.names() == []


def test_a_writer_commits_once(store: ArtifactStore) -> None:
    writer = store.open_writer()
    writer.commit()
    with pytest.raises(ValueError, match="already committed"):
        writer.commit()
    writer.abort()
    empty = hashlib.sha256(b"").hexdigest()
    assert store.size(empty) == 0
    with store.open(empty) as source:
        assert source.read() == b""
    assert store.path(empty).read_bytes() == b""


def test_the_same_bytes_written_at_once_are_kept_once(world: StoreWorld) -> None:
    threads = [
        threading.Thread(target=store_file, args=(world.store, io.BytesIO(DATA))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.names() == [SHA256]
    assert world.store.path(SHA256).read_bytes() == DATA


def test_storing_and_fetching_take_constant_memory(store: ArtifactStore, tmp_path: Path) -> None:
    size = 32 << 20
    source = tmp_path / "large"
    with source.open("wb") as out:
        out.truncate(size)
    tracemalloc.start()
    with source.open("rb") as opened:
        blob = store_file(store, opened)
    fetch_file(store, blob.sha256, tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert blob.bytes == size == (tmp_path / "copy").stat().st_size
    assert peak < size / 2


def test_a_fetched_copy_may_be_changed_without_harm(store: ArtifactStore, tmp_path: Path) -> None:
    stored(store, DATA)
    copy = tmp_path / "copy"
    fetch_file(store, SHA256, copy)
    copy.write_bytes(b"changed")
    assert store.path(SHA256).read_bytes() == DATA


def test_an_absent_blob(store: ArtifactStore, tmp_path: Path) -> None:
    assert not store.exists(SHA256)
    assert store.age_seconds(SHA256) == math.inf
    for look in (store.path, store.open, store.size):
        with pytest.raises(FileNotFoundError, match=SHA256):
            look(SHA256)
    with pytest.raises(FileNotFoundError):
        fetch_file(store, SHA256, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.delete(SHA256)
    stored(store, DATA)
    store.delete(SHA256)
    assert not store.exists(SHA256)
    with pytest.raises(FileNotFoundError):  # a copy of what was deleted is not given out
        store.path(SHA256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, f"{'0' * 64}/.."])
def test_a_name_that_is_no_hash_is_refused(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        store.exists(name)


def test_a_blob_is_young_after_each_time_it_was_written(store: ArtifactStore) -> None:
    for _ in range(2):
        stored(store, DATA)
        assert 0 <= store.age_seconds(SHA256) < 60


def test_damage_in_the_store_is_not_passed_on(world: StoreWorld, tmp_path: Path) -> None:
    stored(world.store, DATA)
    world.damage(SHA256, DATA[:-1] + b"!")
    with pytest.raises(BlobDamaged, match=SHA256):
        fetch_file(world.store, SHA256, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_dead_writers_left_is_removed_when_it_is_old(world: StoreWorld) -> None:
    dead = world.store.open_writer()
    dead.write(DATA)
    world.age(100)
    living = world.store.open_writer()
    living.write(DATA[:7])
    world.store.remove_abandoned_writes(50)
    assert len(world.names()) == 1
    assert living.commit().sha256 == hashlib.sha256(DATA[:7]).hexdigest()
    dead.abort()


def test_a_large_file_is_stored_whole(world: StoreWorld, tmp_path: Path) -> None:
    data = noise((11 << 20) + 3)  # three parts of a multipart upload
    blob = stored(world.store, data)
    fetch_file(world.store, blob.sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert world.names() == [blob.sha256]
