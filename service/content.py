"""Sending blobs: whole, one range, or not at all when the client has them (RFC 9110).

A blob never changes, so its SHA-256 is a strong validator and `If-Range` is a plain comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from persistence.artifact_store import ArtifactStore
from service.conditional import UNCHANGED, matches
from service.problems import ProblemError
from service.uploads.digest import digest_field

_CHUNK = 1 << 18
# the unit is case-insensitive; Python refuses to read numbers of more than 4300 digits
_RANGE = re.compile(r"bytes=\s*([0-9]{0,4000})-([0-9]{0,4000})\s*", re.IGNORECASE)

SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
"""Policy of every file a job made: shown in a browser it may run nothing and fetch nothing."""


class RangeNotSatisfiable(ProblemError):
    """The range starts behind the end."""

    status = 416
    type = "range-not-satisfiable"
    title = "The range lies outside the content"


def send_blob(
    request: Request,
    store: ArtifactStore,
    sha256: str,
    *,
    media_type: str,
    filename: str | None = None,
) -> Response:
    """The response to a GET for a blob.

    Args:
        request: for its conditional and range headers.
        store: where the blob lies.
        sha256: which.
        media_type: of the blob.
        filename: offered for saving; None shows the content in place.
    """
    size = store.size(sha256)
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": digest_field(sha256),
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": SANDBOX,
    }
    if filename is not None:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        headers["Vary"] = "Prefer"
    if matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    if filename is not None and _prefers_redirect(request):
        disposition = headers["Content-Disposition"]
        url = store.download_url(sha256, media_type=media_type, disposition=disposition)
        if url is not None:
            return Response(
                status_code=307,
                headers={
                    "Location": url,
                    "ETag": etag,
                    "Repr-Digest": headers["Repr-Digest"],
                    "Preference-Applied": "redirect",
                    "Cache-Control": "no-store",
                    "Vary": "Prefer",
                },
            )
    wanted = None
    if request.headers.get("if-range", etag) == etag:
        wanted = _range(request.headers.get("range", ""), size)
    start, end = wanted or (0, size)
    headers["Content-Length"] = str(end - start)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if wanted is None else 206
    return StreamingResponse(
        _read(store, sha256, start, end), status, headers=headers, media_type=media_type
    )


def _read(store: ArtifactStore, sha256: str, start: int, end: int) -> Iterator[bytes]:
    with store.open(sha256) as file:
        file.seek(start)
        left = end - start
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise EOFError(f"blob {sha256} is shorter than its size")
            left -= len(chunk)
            yield chunk


def _prefers_redirect(request: Request) -> bool:
    """Whether the client would rather be sent to where the file lies (RFC 7240)."""
    preferred = ",".join(request.headers.getlist("prefer")).split(",")
    return "redirect" in {one.partition(";")[0].strip().lower() for one in preferred}


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First and one-past-last byte; None where the header asks for no single byte range, which
    RFC 9110 lets a server ignore."""
    match = _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable(
            f"The content has {size} bytes; the range starts behind its end.",
            hint=f"Ask for bytes within 0-{size - 1}.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def content_responses(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The successful `responses` of a download."""
    body = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    digest = {
        "ETag": {"description": "The SHA-256, quoted.", "schema": {"type": "string"}},
        "Repr-Digest": {
            "description": "RFC 9530 digest of the whole file.",
            "schema": {"type": "string"},
        },
    }
    return {
        200: {"description": description, "content": body, "headers": digest},
        206: {"description": "The asked range.", "content": body, "headers": digest},
        307: {
            "description": "Where the file is, for a short time: an address in the object store. "
            "Only for a request with `Prefer: redirect`, and only where the operator allows it.",
            "headers": {
                "Location": {"description": "The address.", "schema": {"type": "string"}},
                **digest,
            },
        },
        304: UNCHANGED,
    }
