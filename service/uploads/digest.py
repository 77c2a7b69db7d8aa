"""Digests in headers: `Content-Digest` and `Repr-Digest` (RFC 9530), `X-Content-SHA256`."""

from __future__ import annotations

import base64
import binascii
import re

from starlette.datastructures import Headers

from service.uploads.problems import DigestInvalid

_FIELD = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):")
_HEX = re.compile(r"[0-9a-fA-F]{64}")
_HINT = "Send `Content-Digest: sha-256=:<base64>:` or `X-Content-SHA256: <64 hex digits>`."


def announced_sha256(headers: Headers) -> str | None:
    """The SHA-256 the sender announces, in hex; None when there is none (other algorithms are
    ignored, as RFC 9530 wants)."""
    if (given := headers.get("x-content-sha256")) is not None:
        if not _HEX.fullmatch(given):
            raise DigestInvalid("`X-Content-SHA256` is not 64 hexadecimal digits.", hint=_HINT)
        return given.lower()
    for name in ("content-digest", "repr-digest"):
        if found := _FIELD.search(headers.get(name, "")):
            try:
                digest = base64.b64decode(found[1], validate=True)
            except binascii.Error as error:
                raise DigestInvalid(f"`{name}` is not base64: {error}.", hint=_HINT) from error
            if len(digest) != 32:
                raise DigestInvalid(f"`{name}` holds {len(digest)} bytes, not 32.", hint=_HINT)
            return digest.hex()
    return None


def digest_field(sha256: str) -> str:
    """The value of a `Repr-Digest` header."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
