"""The store itself. Objects lie at `prefix/ab/cd/abcd...`, as the files of a folder do."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from persistence.artifact_store.copying import fetch_file
from persistence.artifact_store.interface import is_hash, place
from persistence.artifact_store.local import remove_old_files
from persistence.artifact_store.s3.cache import BlobCache
from persistence.artifact_store.s3.connection import PIECE_PATIENCE, Absent, Bucket, s3_client
from persistence.artifact_store.s3.reader import BlobReader
from persistence.artifact_store.s3.upload import PART_BYTES, abort
from persistence.artifact_store.s3.writer import S3BlobWriter, cache_errors
from persistence.artifact_url import bucket_and_prefix
from persistence.settings import Settings

_SAME_CLOCK_SECONDS = 5


@dataclass(frozen=True)
class Presigning:
    """Addresses that clients download from.

    Attributes:
        client: of the client library, for the address that clients reach.
        seconds: how long an address is good for.
    """

    client: Any
    seconds: int


@dataclass(frozen=True)
class S3ArtifactStore:
    """Blobs in a bucket. Threads and machines may share it.

    Attributes:
        bucket: where.
        prefix: in front of every key; empty or ending in a slash.
        cache: local copies.
        presigning: None where clients download from the service.
        part_bytes: of uploads; what a writer holds in memory.
    """

    bucket: Bucket
    prefix: str
    cache: BlobCache
    presigning: Presigning | None = None
    part_bytes: int = PART_BYTES

    def key(self, sha256: str) -> str:
        """Name of the blob's object."""
        return self.prefix + place(sha256)

    def check(self) -> None:
        """Ask the bucket, with the credentials, and write a file among the local copies."""
        with self.open_writer() as writer:
            writer.write(b"ready?")
        once = replace(self.bucket, pauses=())  # whoever asks wants to know how it is now
        once.call("list_objects_v2", Prefix=self.prefix, MaxKeys=1)

    def open_writer(self) -> S3BlobWriter:
        """Start a new blob."""
        return S3BlobWriter(self)

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading; what is read whole is verified."""
        key = self.key(sha256)

        def fetch(start: int, end: int) -> bytearray:
            try:
                return self.bucket.read(key, start, end)
            except Absent as error:
                raise _absent(sha256) from error

        return io.BufferedReader(BlobReader(sha256, self.size(sha256), fetch))

    def path(self, sha256: str) -> Path:
        """A verified local copy; it stays for ten minutes at least."""
        self.size(sha256)  # what was deleted is not served from a copy
        with cache_errors():
            self.cache.make()
            found = self.cache.find(sha256)
        if found is not None:
            return found
        temporary = self.cache.temporary()
        try:
            with cache_errors(absent=True):
                fetch_file(self, sha256, temporary)
            with cache_errors():
                _flush(temporary)
                return self.cache.adopt(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self._look(sha256) is not None

    def delete(self, sha256: str) -> None:
        """Remove the object and the local copy here; other machines' copies leave in time."""
        self.bucket.call("delete_object", Key=self.key(sha256))
        with cache_errors():
            self.cache.forget(sha256)

    def size(self, sha256: str) -> int:
        """Bytes of the blob."""
        found = self._look(sha256)
        if found is None:
            raise _absent(sha256)
        return int(found["ContentLength"])

    def age_seconds(self, sha256: str) -> float:
        """Time since the blob was last written. The server tells both times in whole seconds, so
        its clock is used only where ours is clearly another."""
        found = self._look(sha256)
        if found is None:
            return math.inf
        now = datetime.now(UTC)
        sent = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        theirs = parsedate_to_datetime(sent) if sent else now
        if abs((now - theirs).total_seconds()) > _SAME_CLOCK_SECONDS:
            now = theirs
        written: datetime = found["LastModified"]
        return max(0.0, (now - written).total_seconds())

    def blobs(self) -> Iterator[str]:
        """The hashes of all blobs, a thousand to a request."""
        for page in self._pages("list_objects_v2", "ContinuationToken"):
            for entry in page.get("Contents", ()):
                name = str(entry["Key"]).rpartition("/")[2]
                if is_hash(name) and entry["Key"] == self.key(name):
                    yield name

    def remove_abandoned_writes(self, min_age_seconds: float) -> None:
        """Remove old temporary files here, and the parts of old uploads in the bucket."""
        with cache_errors():
            self.cache.make()
            remove_old_files(self.cache.incoming, min_age_seconds)
            self.cache.evict()
        for page in self._pages("list_multipart_uploads", "KeyMarker", "UploadIdMarker"):
            for entry in page.get("Uploads", ()):
                age = (datetime.now(UTC) - entry["Initiated"]).total_seconds()
                if age >= min_age_seconds:
                    abort(self.bucket, entry["Key"], entry["UploadId"])

    def download_url(self, sha256: str, *, media_type: str, disposition: str | None) -> str | None:
        """A presigned URL."""
        if self.presigning is None:
            return None
        shown = {} if disposition is None else {"ResponseContentDisposition": disposition}
        url: str = self.presigning.client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self.bucket.name,
                "Key": self.key(sha256),
                "ResponseContentType": media_type,
                **shown,
            },
            ExpiresIn=self.presigning.seconds,
        )
        return url

    def _look(self, sha256: str) -> Any:
        try:
            return self.bucket.call("head_object", Key=self.key(sha256))
        except Absent:
            # the answer to HEAD has no body: it may be the bucket that is not there
            self.bucket.call("list_objects_v2", Prefix=self.key(sha256), MaxKeys=1)
            return None

    def _pages(self, operation: str, *markers: str) -> Iterator[Any]:
        asked: dict[str, Any] = {}
        while True:
            page = self.bucket.call(operation, Prefix=self.prefix, **asked)
            yield page
            if not page.get("IsTruncated"):
                return
            asked = {name: page[f"Next{name}"] for name in markers if page.get(f"Next{name}")}


def s3_store(settings: Settings) -> S3ArtifactStore:
    """The store that `artifact_url` names."""
    name, prefix = bucket_and_prefix(settings.artifact_url or "")
    access: dict[str, Any] = {
        "region": settings.artifact_s3_region,
        "path_style": settings.artifact_s3_path_style,
        "timeout_seconds": settings.artifact_s3_timeout_seconds,
    }
    client = s3_client(endpoint=settings.artifact_s3_endpoint, **access)
    presigning = None
    if settings.artifact_redirects:
        reached = settings.artifact_redirect_endpoint
        outside = client if reached is None else s3_client(endpoint=reached, **access)
        presigning = Presigning(outside, settings.artifact_redirect_seconds)
    return S3ArtifactStore(
        bucket=Bucket(
            client,
            name,
            settings.artifact_s3_timeout_seconds,
            piece_seconds=PIECE_PATIENCE * settings.artifact_s3_timeout_seconds,
        ),
        prefix=prefix,
        cache=BlobCache(settings.resolved_artifact_cache_dir, settings.artifact_cache_bytes),
        presigning=presigning,
    )


def _absent(sha256: str) -> FileNotFoundError:
    return FileNotFoundError(f"no blob {sha256} in the artifact store")


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
