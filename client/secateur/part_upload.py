"""Large files in parts: several at once, each with its SHA-256, gone on with after an interruption.

Nothing is kept on this side. The server knows an upload by the hash of the whole file and tells
which parts it has; only the others are sent.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.answers import pages, parse
from secateur.errors import ApiError, SecateurError
from secateur.resources import Upload, UploadKind, UploadPart
from secateur.transfer import CHUNK, Progress, content_digest, file_sha256
from secateur.transport import Transport

IN_PARTS_ABOVE = 64 * 2**20
"""Bytes of a file that is sent in one request still."""
THREADS = 4
BUSY_SECONDS = 2.0
COMPLETE_SECONDS = 3600.0
"""How long the server may take to put a file together."""

Resumed = Callable[[int, int], None]
"""Called with the parts that the server has and the parts in all, when it has any."""


class UploadCorrupt(SecateurError):
    """The server received other bytes than were sent, or the file changed meanwhile."""


class _Stopped(Exception):
    """Another part failed; this one need not be sent to its end."""


@dataclass(frozen=True)
class _Part:
    number: int
    offset: int
    size: int


def upload_in_parts(
    transport: Transport,
    kind: UploadKind,
    path: Path,
    *,
    name: str,
    progress: Progress | None = None,
    resumed: Resumed | None = None,
) -> bytes:
    """Send a file in parts; returns the server's answer, the model or dataset.

    Interrupted and called again with the same file, it sends what is missing.

    Raises:
        ApiError: the server refused the file, or a part.
        UploadCorrupt: the file changed while it was sent.
        ServerUnreachable: it stopped answering.
    """
    size = path.stat().st_size
    sha256 = file_sha256(path)
    upload, here = _begun(transport, kind, size, sha256) or (
        _begin(transport, kind, size, sha256, name),
        {},
    )
    parts = _parts(size, upload.part_bytes)
    if here.keys() - {part.number for part in parts}:
        # it was begun with parts of another size; what is beyond the end cannot be taken back
        transport.request("DELETE", f"/v1/uploads/{upload.id}")
        upload, here = _begin(transport, kind, size, sha256, name), {}
        parts = _parts(size, upload.part_bytes)
    if here and resumed:
        resumed(len(here), len(parts))
    sender = _Sender(transport, upload.id, path, here, size, progress)
    hashes = sender.send(parts)
    listed = [
        {"number": part.number, "sha256": digest}
        for part, digest in zip(parts, hashes, strict=True)
    ]
    return _complete(transport, upload.id, {"parts": listed})


def _begin(transport: Transport, kind: UploadKind, size: int, sha256: str, name: str) -> Upload:
    response = transport.request(
        "POST",
        "/v1/uploads",
        json={"kind": kind, "name": name, "bytes": size, "sha256": sha256},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )
    return parse(Upload, response.content)


def _begun(
    transport: Transport, kind: UploadKind, size: int, sha256: str
) -> tuple[Upload, dict[int, UploadPart]] | None:
    """An open upload of this very file, and the parts that arrived."""
    filters = {"kind": kind, "sha256": sha256, "status": "open"}
    found = [one for one in pages(transport, "/v1/uploads", Upload, filters) if one.bytes == size]
    if not found:
        return None
    upload = found[0]
    listed = pages(transport, f"/v1/uploads/{upload.id}/parts", UploadPart, {})
    return upload, {part.number: part for part in listed}


def _parts(size: int, part_bytes: int) -> list[_Part]:
    return [
        _Part(number, offset, min(part_bytes, size - offset))
        for number, offset in enumerate(range(0, size, part_bytes), 1)
    ]


def _complete(transport: Transport, upload_id: str, body: dict[str, Any]) -> bytes:
    deadline = time.monotonic() + COMPLETE_SECONDS
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    while True:
        try:
            return transport.request(
                "POST", f"/v1/uploads/{upload_id}/complete", json=body, headers=headers
            ).content
        except ApiError as error:
            busy = error.problem.type.endswith("/upload-busy")
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_SECONDS)


class _Sender:
    """Sends the parts of one file with several threads."""

    def __init__(  # noqa: PLR0917 - what is sent, and what need not be
        self,
        transport: Transport,
        upload_id: str,
        path: Path,
        here: dict[int, UploadPart],
        size: int,
        progress: Progress | None,
    ) -> None:
        self._transport = transport
        self._upload_id = upload_id
        self._path = path
        self._here = here
        self._size = size
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        """The first; what it stopped fails after it."""

    def send(self, parts: list[_Part]) -> list[str]:
        """The hashes of all parts, when all have arrived."""
        self._advance(0)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="secateur upload") as pool:
            sending = [pool.submit(self._send_or_stop, part) for part in parts]
            try:
                wait(sending, return_when=FIRST_EXCEPTION)
                if self._failure is not None:
                    raise self._failure
                return [one.result() for one in sending]
            finally:
                # after an error, Ctrl-C too: what is under way ends at its next piece, and the
                # rest is not begun
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _send_or_stop(self, part: _Part) -> str:
        try:
            return self._send(part)
        except BaseException as error:
            # at once: until the waiting thread looks, this one and others would begin more parts
            with self._lock:
                self._failure = self._failure or error
            self._stop.set()
            raise

    def _send(self, part: _Part) -> str:
        sha256 = self._hash(part)
        known = self._here.get(part.number)
        if known is not None and (known.sha256, known.bytes) == (sha256, part.size):
            self._advance(part.size)
            return sha256
        response = self._transport.request(
            "PUT",
            f"/v1/uploads/{self._upload_id}/parts/{part.number}",
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(part.size),
                "Content-Digest": content_digest(sha256),
            },
            body=lambda: self._pieces(part),
        )
        arrived = parse(UploadPart, response.content)
        if arrived.sha256 != sha256:
            raise UploadCorrupt(
                f"part {part.number} of {self._path.name} arrived with other content",
                hint="send the file again; if it repeats, the connection or the server is damaged",
            )
        self._advance(part.size)
        return sha256

    def _hash(self, part: _Part) -> str:
        digest = hashlib.sha256()
        for piece in self._pieces(part):
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self, part: _Part) -> Iterator[bytes]:
        left = part.size
        with self._path.open("rb") as file:
            file.seek(part.offset)
            while left > 0:
                if self._stop.is_set():
                    raise _Stopped
                piece = file.read(min(CHUNK, left))
                if not piece:
                    raise UploadCorrupt(
                        f"{self._path} became shorter while it was sent",
                        hint="send it again when nothing writes to it",
                    )
                left -= len(piece)
                yield piece

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._size)
