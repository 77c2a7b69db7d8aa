"""A local file into a bucket, under the name of its content.

The hash is known before the first byte leaves, so there is no temporary name in the bucket: a
single request or the completion of a multipart upload makes the object appear whole. Each request
carries the SHA-256 of its body, which the server checks.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import Any, BinaryIO

import structlog

from persistence.artifact_store.errors import StoreUnavailable
from persistence.artifact_store.s3.connection import Absent, Bucket

PART_BYTES = 16 * 2**20
"""Of a multipart upload, and the largest file that is sent in one request."""
MOST_PARTS = 10_000
"""S3's own limit."""
log = structlog.get_logger()


def upload(
    bucket: Bucket, key: str, file: BinaryIO, size: int, *, part_bytes: int = PART_BYTES
) -> None:
    """Store the file's `size` bytes as the object `key`, in place of an equal one.

    Raises:
        StoreUnavailable: nothing was stored, and no parts are left unless the store stopped
            answering; those are removed with the writes that were abandoned.
    """
    if size <= part_bytes:
        file.seek(0)
        content = file.read(size)
        bucket.call("put_object", Key=key, Body=content, ChecksumSHA256=_digest(content))
        return
    started = bucket.call("create_multipart_upload", Key=key, ChecksumAlgorithm="SHA256")
    upload_id: str = started["UploadId"]
    try:
        parts = _send(bucket, key, upload_id, file, max(part_bytes, -(-size // MOST_PARTS)))
        _complete(bucket, key, upload_id, parts, size)
    except BaseException:
        abort(bucket, key, upload_id)
        raise


def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Remove the parts of an upload that will not be completed."""
    try:
        bucket.call("abort_multipart_upload", Key=key, UploadId=upload_id)
    except Absent:
        return
    except StoreUnavailable as error:
        log.warning("parts of an upload were left in the bucket", reason=error.reason)


def _send(
    bucket: Bucket, key: str, upload_id: str, file: BinaryIO, part_bytes: int
) -> list[dict[str, Any]]:
    file.seek(0)
    parts: list[dict[str, Any]] = []
    while content := file.read(part_bytes):
        number, digest = len(parts) + 1, _digest(content)
        try:
            answer = bucket.call(
                "upload_part",
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=content,
                ChecksumSHA256=digest,
            )
        except Absent as error:
            raise _vanished() from error
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": digest})
    return parts


def _complete(
    bucket: Bucket, key: str, upload_id: str, parts: list[dict[str, Any]], size: int
) -> None:
    try:
        bucket.call(
            "complete_multipart_upload",
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
        )
    except Absent as error:
        # an earlier attempt was carried out and its answer got lost, or somebody aborted it
        with contextlib.suppress(Absent):
            if bucket.call("head_object", Key=key)["ContentLength"] == size:
                return
        raise _vanished() from error


def _vanished() -> StoreUnavailable:
    return StoreUnavailable(
        "the object store dropped an upload under way",
        hint="Look for a lifecycle rule of the bucket that aborts young multipart uploads.",
    )


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
