"""Files to and from the server in constant memory.

Uploads carry their SHA-256 so that the server can refuse a truncated body. Downloads go to a
`.part` file named by the content's hash, resume where they stopped, and take their final name
only when the hash is right.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from secateur.errors import ApiError, DownloadCorrupt, SecateurError
from secateur.transport import BUSY, Backoff, RedirectFailed, Transport

CHUNK = 1 << 20
Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""
Stream = Callable[[str, dict[str, str]], AbstractContextManager[httpx.Response]]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(sha256: str) -> str:
    """The `Content-Digest` header of RFC 9530."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def read_chunks(path: Path, progress: Progress | None) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    total, done = path.stat().st_size, 0
    if progress:
        progress(0, total)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            done += len(chunk)
            if progress:
                progress(done, total)


def readable_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file that can be read."""
    file = Path(path)
    if not file.is_file():
        raise SecateurError(f"{file} is not a file", hint="check the path")
    if not os.access(file, os.R_OK):
        raise SecateurError(f"{file} cannot be read", hint="check its permissions")
    return file


def download(
    transport: Transport,
    source: str,
    target: Path,
    *,
    sha256: str,
    size: int,
    progress: Progress | None = None,
) -> Path:
    """Download `source` to `target`, whole and verified, or not at all.

    Raises:
        DownloadCorrupt: the bytes are not those the server promised.
        ApiError: the server refused.
        ServerUnreachable: it stopped answering.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{sha256[:16]}.part"
    backoff = Backoff()
    stream = transport.stream_from_anywhere
    while not part.exists() or _size(part) < size:
        done = _size(part)
        try:
            _append(stream, source, part, sha256=sha256, size=size, progress=progress)
            backoff.reset()
        except RedirectFailed:
            stream = transport.stream  # the object store is out of our reach; the server is not
        except httpx.TransportError as error:
            if _size(part) > done:
                backoff.reset()
            backoff.pause(transport.unreachable(error))
        except ApiError as error:
            if error.status not in BUSY:
                raise
            backoff.pause(error)
    if part.stat().st_size != size or file_sha256(part) != sha256:
        part.unlink()
        raise DownloadCorrupt(
            f"{target.name} arrived with other content than the server promised",
            hint="download it again; if it repeats, the server's artifact store is damaged",
        )
    part.replace(target)
    return target


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _append(
    stream: Stream,
    source: str,
    part: Path,
    *,
    sha256: str,
    size: int,
    progress: Progress | None,
) -> None:
    done = _size(part)
    # Byte positions count in the file itself, so it must not be compressed on the way.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        # of other content the whole is sent: two halves of different files make none
        headers["If-Range"] = f'"{sha256}"'
    with stream(source, headers) as response, part.open("r+b" if done else "wb") as file:
        # A server that ignores Range sends everything from the start.
        done = done if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
        file.seek(done)
        file.truncate()
        for chunk in response.iter_bytes():
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, size)
        file.flush()
        os.fsync(file.fileno())
    if done < size:
        raise httpx.RemoteProtocolError(f"the connection closed after {done} of {size} bytes")
