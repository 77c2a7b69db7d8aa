from __future__ import annotations

import hashlib
import io
import threading
import tracemalloc
from pathlib import Path

import pytest

from persistence.artifact_store import LocalArtifactStore, fetch_file, store_file

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def files(store: LocalArtifactStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_committed_blob_is_found_by_its_hash(store: LocalArtifactStore) -> None:
    with store.open_writer() as writer:
        writer.write(DATA[:10])
        writer.write(DATA[10:])
        assert not store.exists(SHA256)
        blob = writer.commit()
    assert (blob.sha256, blob.bytes) == (SHA256, len(DATA))
    assert store.exists(SHA256)
    assert store.size(SHA256) == len(DATA)
    assert store.path(SHA256).read_bytes() == DATA
    with store.open(SHA256) as source:
        source.seek(7)
        assert source.read(7) == b"weights"
    assert files(store) == [store.path(SHA256)]


def test_an_uncommitted_writer_leaves_nothing(store: LocalArtifactStore) -> None:
    def upload_half() -> None:
        with store.open_writer() as writer:
            writer.write(DATA)
            raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        upload_half()
    assert files(store) == []


def test_a_writer_commits_once(store: LocalArtifactStore) -> None:
    writer = store.open_writer()
    writer.commit()
    with pytest.raises(ValueError, match="already committed"):
        writer.commit()
    writer.abort()
    assert store.exists(hashlib.sha256(b"").hexdigest())


def test_the_same_bytes_written_at_once_are_kept_once(store: LocalArtifactStore) -> None:
    threads = [
        threading.Thread(target=store_file, args=(store, io.BytesIO(DATA))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(store) == [store.path(SHA256)]
    assert store.path(SHA256).read_bytes() == DATA


def test_storing_and_fetching_take_constant_memory(
    store: LocalArtifactStore, tmp_path: Path
) -> None:
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
    assert peak < size / 4


def test_a_fetched_copy_may_be_changed_without_harm(
    store: LocalArtifactStore, tmp_path: Path
) -> None:
    store_file(store, io.BytesIO(DATA))
    copy = tmp_path / "copy"
    fetch_file(store, SHA256, copy)
    copy.write_bytes(b"changed")
    assert store.path(SHA256).read_bytes() == DATA


def test_an_absent_blob(store: LocalArtifactStore) -> None:
    assert not store.exists(SHA256)
    for look in (store.path, store.open, store.size):
        with pytest.raises(FileNotFoundError):
            look(SHA256)
    store.delete(SHA256)
    store_file(store, io.BytesIO(DATA))
    store.delete(SHA256)
    assert not store.exists(SHA256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, f"{'0' * 64}/.."])
def test_a_name_that_is_no_hash_is_refused(store: LocalArtifactStore, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        store.exists(name)
