"""The bucket's store behind a network and a server that fail."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persistence.artifact_store import BlobDamaged, StoreUnavailable, fetch_file, store_file
from persistence.artifact_store.s3 import S3ArtifactStore
from persistence.artifact_store.s3.connection import s3_client
from persistence.settings import Settings
from tests.persistence.artifact_store.store_world import PART_BYTES, s3_store_of
from tests.s3_fault_proxy import Fault, S3FaultProxy
from tests.s3_server import ACCESS_KEY, SECRET_KEY, S3Server

DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
PASSING = [
    Fault("status", status=500, code="InternalError", times=2),
    Fault("status", status=503, times=2),
    Fault("status", status=429, code="TooManyRequests", times=2),
    Fault("reset", times=2),
    Fault("lost", times=2),
    Fault("garble", method="PUT"),
]


@dataclass(frozen=True)
class Behind:
    """A store behind the fault proxy."""

    store: S3ArtifactStore
    proxy: S3FaultProxy
    server: S3Server

    @property
    def left(self) -> list[str]:
        return [path.name for path in self.store.cache.incoming.iterdir()]

    def impatient(self) -> Any:
        """A client that waits a second."""
        return s3_client(endpoint=self.proxy.url, region=None, path_style=True, timeout_seconds=1)

    def keys(self) -> list[str]:
        return self.server.keys(self.store.bucket.name)

    def unfinished(self) -> int:
        return self.server.unfinished(self.store.bucket.name)


@pytest.fixture
def behind(tmp_path: Path, s3_service: S3Server, s3_proxy: S3FaultProxy) -> Iterator[Behind]:
    with s3_service.credentials():
        bucket = s3_service.make_bucket()
        fields = s3_service.settings(bucket, url=s3_proxy.url)
        settings = Settings(data_dir=tmp_path, **fields)
        yield Behind(s3_store_of(settings), s3_proxy, s3_service)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_what_passes_is_not_noticed(behind: Behind, tmp_path: Path, fault: Fault) -> None:
    behind.proxy.add(replace(fault))
    store_file(behind.store, io.BytesIO(DATA))
    if fault.method is None:
        behind.proxy.add(replace(fault))
    fetch_file(behind.store, SHA256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    behind.proxy.add(replace(fault))
    behind.store.delete(SHA256)
    assert behind.keys() == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("truncate", method="GET", after=100),
        Fault("slow", method="GET", seconds=0.4, pieces=20),
        Fault("corrupt", method="GET"),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_body_that_ends_early_or_never_or_lies_is_read_again(
    behind: Behind, tmp_path: Path, fault: Fault
) -> None:
    store_file(behind.store, io.BytesIO(DATA * 20))
    sha256 = hashlib.sha256(DATA * 20).hexdigest()
    behind.proxy.add(fault)
    impatient = replace(behind.store.bucket, piece_seconds=3)
    fetch_file(replace(behind.store, bucket=impatient), sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA * 20
    assert fault.times == 0


def test_silence_has_an_end(behind: Behind) -> None:
    behind.proxy.add(Fault("hang", seconds=60))
    quick = replace(behind.store.bucket, client=behind.impatient())
    assert not replace(behind.store, bucket=quick).exists(SHA256)


@pytest.mark.parametrize("fault", ["status", "reset"])
def test_what_does_not_pass_is_said_and_leaves_nothing(behind: Behind, fault: str) -> None:
    store = behind.store
    behind.proxy.add(Fault(fault, times=None))  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable) as caught:
        store_file(store, io.BytesIO(DATA))
    assert caught.value.hint
    assert behind.left == []
    for ask in (store.exists, store.open, store.path, store.delete, store.age_seconds):
        with pytest.raises(StoreUnavailable):
            ask(SHA256)
    for look in (store.check, lambda: list(store.blobs())):
        with pytest.raises(StoreUnavailable):
            look()
    behind.proxy.clear()
    assert behind.keys() == []


def test_a_bucket_that_lies_in_every_answer_is_damaged(behind: Behind, tmp_path: Path) -> None:
    store_file(behind.store, io.BytesIO(DATA))
    behind.store.cache.forget(SHA256)
    behind.proxy.add(Fault("corrupt", method="GET", times=None, matching=SHA256))
    with pytest.raises(BlobDamaged):
        fetch_file(behind.store, SHA256, tmp_path / "copy")
    with pytest.raises(BlobDamaged):
        behind.store.path(SHA256)
    assert not (tmp_path / "copy").exists()
    assert behind.left == []


@pytest.fixture(scope="module")
def large() -> bytes:
    return np.random.default_rng(1).bytes(2 * PART_BYTES + 10)


@pytest.mark.parametrize(
    ("method", "matching"), [("PUT", "partNumber=2"), ("POST", "uploadId"), ("POST", "?uploads")]
)
def test_parts_are_sent_again(behind: Behind, large: bytes, method: str, matching: str) -> None:
    # an upload whose beginning was carried out and not answered leaves an empty one for the sweep
    kinds = ["status", "reset"] if matching == "?uploads" else ["status", "lost", "reset"]
    for kind in kinds:
        behind.proxy.add(Fault(kind, method=method, matching=matching))  # type: ignore[arg-type]
    blob = store_file(behind.store, io.BytesIO(large))
    assert behind.unfinished() == 0
    behind.store.cache.forget(blob.sha256)
    assert behind.store.path(blob.sha256).read_bytes() == large


@pytest.mark.parametrize(("method", "matching"), [("PUT", "partNumber=2"), ("POST", "uploadId=")])
def test_an_upload_given_up_leaves_no_parts(
    behind: Behind, large: bytes, method: str, matching: str
) -> None:
    behind.proxy.add(Fault("status", method=method, matching=matching, times=None))
    with pytest.raises(StoreUnavailable):
        store_file(behind.store, io.BytesIO(large))
    assert behind.unfinished() == 0
    assert behind.keys() == []
    assert behind.left == []


def test_parts_that_nobody_could_remove_are_swept(behind: Behind, large: bytes) -> None:
    behind.proxy.add(Fault("status", method="PUT", matching="partNumber=2", times=None))
    behind.proxy.add(Fault("reset", method="DELETE", times=None))
    with pytest.raises(StoreUnavailable):
        store_file(behind.store, io.BytesIO(large))
    behind.proxy.clear()
    assert behind.unfinished() == 1
    behind.store.remove_abandoned_writes(100 * 365 * 86400)  # this server says they are of 2010
    assert behind.unfinished() == 1
    behind.store.remove_abandoned_writes(0)
    assert behind.unfinished() == 0


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "refuses access (403 AccessDenied)"),
        (403, "InvalidAccessKeyId", "refuses access (403 InvalidAccessKeyId)"),
        (404, "NoSuchBucket", "the bucket does not exist"),
        (400, "AuthorizationHeaderMalformed", "not in the region"),
        (418, "Teapot", "answers 418 Teapot"),
    ],
)
def test_refusals_are_said_at_once_and_clearly(
    behind: Behind, status: int, code: str, said: str
) -> None:
    behind.proxy.add(Fault("status", status=status, code=code, times=None))
    with pytest.raises(StoreUnavailable) as caught:
        behind.store.check()
    assert said in str(caught.value)
    assert len(behind.proxy.requests) == 1


def test_a_bucket_that_is_not_there_is_not_an_absent_blob(behind: Behind) -> None:
    bucket = replace(behind.store.bucket, name="no-such-bucket")
    nowhere = replace(behind.store, bucket=bucket)
    for ask in (nowhere.exists, nowhere.open, nowhere.path, nowhere.size):
        with pytest.raises(StoreUnavailable, match="bucket does not exist"):
            ask(SHA256)


def test_without_credentials_that_is_said(
    behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fields = behind.server.settings(behind.store.bucket.name)
    with pytest.raises(StoreUnavailable, match="no credentials"):
        s3_store_of(Settings(data_dir=tmp_path, **fields)).check()


def test_no_secret_in_errors_or_logs(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    behind.proxy.add(Fault("status", status=403, code="SignatureDoesNotMatch", times=1))
    behind.proxy.add(Fault("reset", times=None))
    said = []
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            behind.store.check()
        said.append(f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}")
    for text in (*said, caplog.text):
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text
