"""One store of either kind, and a look at everything it keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persistence.artifact_store import ArtifactStore, LocalArtifactStore, open_store
from persistence.artifact_store.interface import is_hash
from persistence.artifact_store.s3 import S3ArtifactStore
from persistence.settings import Settings
from tests.s3_server import S3Server

PART_BYTES = 5 * 2**20
"""The smallest that S3 takes, so that small files go up in parts."""


@dataclass(frozen=True)
class StoreWorld:
    """A store under test.

    Attributes:
        store: itself.
        names: of everything that lies in it, half-written things included.
        damage: changes a blob's bytes behind the store's back.
        age: makes what writers left behind look older by so many seconds.
    """

    store: ArtifactStore
    names: Callable[[], list[str]]
    damage: Callable[[str, bytes], None]
    age: Callable[[float], None]


def local_world(folder: Path) -> StoreWorld:
    store = LocalArtifactStore(folder / "artifacts")

    def names() -> list[str]:
        return sorted(path.name for path in store.root.rglob("*") if path.is_file())

    def damage(sha256: str, data: bytes) -> None:
        path = store.location(sha256)
        path.chmod(0o644)
        path.write_bytes(data)

    return StoreWorld(store, names, damage, lambda seconds: _age(store.incoming, seconds))


def s3_store_of(settings: Settings, **changes: Any) -> S3ArtifactStore:
    """The store of the settings, with small parts and short pauses."""
    store = open_store(settings)
    assert isinstance(store, S3ArtifactStore)
    bucket = replace(store.bucket, pauses=(0.01, 0.02, 0.04))
    return replace(store, **{"part_bytes": PART_BYTES, "bucket": bucket, **changes})


@contextmanager
def s3_world(folder: Path, server: S3Server, prefix: str = "some/where") -> Iterator[StoreWorld]:
    with ExitStack() as stack:
        stack.enter_context(server.credentials())
        bucket = server.make_bucket()
        store = s3_store_of(Settings(data_dir=folder, **server.settings(bucket, prefix=prefix)))

        def names() -> list[str]:
            keys = [key.rpartition("/")[2] for key in server.keys(bucket)]
            incoming = store.cache.incoming
            files = [path.name for path in incoming.iterdir()] if incoming.exists() else []
            return sorted([*keys, *files, *["parts"] * server.unfinished(bucket)])

        def damage(sha256: str, data: bytes) -> None:
            server.client().put_object(Bucket=bucket, Key=store.key(sha256), Body=data)
            store.cache.forget(sha256)

        yield StoreWorld(store, names, damage, lambda seconds: _age(store.cache.incoming, seconds))


def _age(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        assert not is_hash(path.name)
        written = path.stat().st_mtime - seconds
        os.utime(path, (written, written))
