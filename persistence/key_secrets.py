"""The form of an API key's secret: `sk_<id>_<43 random characters><checksum>`.

The id leads to the row, so a lookup is one read by primary key. The random part carries 256 bits.
Six characters of CRC-32 let secret scanners tell a real secret from a string that looks like one,
and the server refuse what was cut or misspelled without asking the database. They prove nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

PREFIX = "sk_"
"""The public beginning of every secret."""
SHOWN = 16
"""Characters that may be shown: the prefix and half of the key's id."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM = 6
_CURRENT = re.compile(r"sk_([0-9a-z]{26})_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}", re.ASCII)
_FIRST = re.compile(r"sk_[A-Za-z0-9_-]{43}", re.ASCII)
"""Keys of the first version, without an id."""


def make(key_id: str) -> str:
    """A fresh secret for the key of this id, such as `key_01kaxq...`."""
    body = f"{PREFIX}{key_id.partition('_')[2]}_{secrets.token_urlsafe(32)}"
    return body + _checksum(body)


def key_id(secret: str) -> str | None:
    """Id of the key that the secret names; None when it names none."""
    match = _CURRENT.fullmatch(secret)
    if match is None or _checksum(secret[:-_CHECKSUM]) != secret[-_CHECKSUM:]:
        return None
    return f"key_{match.group(1)}"


def is_of_the_first_form(secret: str) -> bool:
    """Whether the secret may be one of the first version."""
    return _FIRST.fullmatch(secret) is not None


def sha256(secret: str) -> str:
    """What is stored. One unsalted hash is enough: of 256 random bits there is no dictionary."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
