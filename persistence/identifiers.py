"""Prefixed identifiers that sort by creation time.

The body is a UUIDv7 (RFC 9562) in Crockford base 32: 48 bits of milliseconds, then random bits,
so ids sort as strings in the order they were made (to the millisecond) and cannot be guessed.
"""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A fresh identifier such as `job_01kaxq0f3m8s6e5v2t7c9d1r4w`."""
    milliseconds = time.time_ns() // 1_000_000
    number = (
        (milliseconds & (2**48 - 1)) << 80
        | 0x7 << 76
        | secrets.randbits(12) << 64
        | 0b10 << 62
        | secrets.randbits(62)
    )
    digits = []
    for _ in range(26):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(digits))}"
