"""A request body into the artifact store: constant memory, hashed on the way, all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio import to_thread
from fastapi import Request

from persistence.artifact_store import ArtifactStore, BlobWriter, StoredBlob
from service.problems import ProblemError
from service.uploads.behind import Behind
from service.uploads.digest import announced_sha256
from service.uploads.multipart import FilePart
from service.uploads.problems import (
    DigestMismatch,
    UploadEmpty,
    UploadEncoded,
    UploadTooLarge,
    UploadTruncated,
)

_BUFFER_BYTES = 1 << 20
_FORM_OVERHEAD = 1 << 16


@dataclass(frozen=True)
class Received:
    """A file that arrived whole."""

    blob: StoredBlob
    form_name: str | None


async def receive_file(
    request: Request,
    store: ArtifactStore,
    *,
    limit: int,
    too_large: ProblemError | None = None,
) -> Received:
    """Stream the body, raw or multipart, into the store.

    Disk writes and hashing run in a worker thread, a mebibyte at a time, while the next mebibyte
    arrives. Whatever goes wrong, a client that hangs up included, leaves nothing behind.

    Args:
        request: the request, its body unread.
        store: where the bytes go.
        limit: largest file in bytes.
        too_large: raised for a larger one, in place of `UploadTooLarge`.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UploadEncoded(encoding)
    announced = _announced_length(request)
    content_type = request.headers.get("content-type", "")
    is_form = content_type.lower().startswith("multipart/")
    if announced is not None and announced > limit + (_FORM_OVERHEAD if is_form else 0):
        raise too_large or UploadTooLarge(limit)
    expected = announced_sha256(request.headers)
    writer = await to_thread.run_sync(store.open_writer)
    behind = Behind()
    try:
        sink = _Sink(
            writer, limit, too_large or UploadTooLarge(limit), hashing=expected is not None
        )
        form = FilePart(content_type, sink.write) if is_form else None
        await _pump(request, form.feed if form else sink.write, behind, announced)
        if form is not None:
            form.finish()
        if sink.written == 0:
            raise UploadEmpty
        if expected is not None and sink.sha256() != expected:
            raise DigestMismatch(expected, sink.sha256())
        blob = await to_thread.run_sync(writer.commit)
        return Received(blob=blob, form_name=form.name if form else None)
    finally:
        # also when the server stops in the middle, which cancels this task
        with anyio.CancelScope(shield=True):
            await behind.settle()
            await to_thread.run_sync(writer.abort)


class _Sink:
    def __init__(
        self, writer: BlobWriter, limit: int, too_large: ProblemError, *, hashing: bool
    ) -> None:
        self._writer = writer
        self._limit = limit
        self._too_large = too_large
        self._hash = hashlib.sha256() if hashing else None
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if self.written > self._limit:
            raise self._too_large
        self._writer.write(data)
        if self._hash is not None:
            self._hash.update(data)

    def sha256(self) -> str:
        return "" if self._hash is None else self._hash.hexdigest()


async def _pump(
    request: Request, feed: Callable[[bytes], None], behind: Behind, announced: int | None
) -> None:
    received = buffered = 0
    buffer: list[bytes] = []
    async for chunk in request.stream():
        received += len(chunk)
        buffered += len(chunk)
        buffer.append(chunk)
        if buffered >= _BUFFER_BYTES:
            await behind.start(feed, b"".join(buffer))
            buffer.clear()
            buffered = 0
    await behind.start(feed, b"".join(buffer))
    await behind.finish()
    if announced is not None and received != announced:
        raise UploadTruncated(f"{announced} bytes were announced, {received} arrived.")


def _announced_length(request: Request) -> int | None:
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None
