"""Secrets in answers that are kept for requests sent again.

The database keeps such an answer for a day, and must not keep a secret that opens anything. So the
secret is sealed (AES-256-GCM) with a key derived by HKDF-SHA256 (RFC 5869) from the API key of the
request and its `Idempotency-Key`. The server has the hash of the first only, so that whoever reads
the database reads no secret, and the client that sends its request again brings what opens it.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SALT_BYTES = 16
_NONCE_BYTES = 12
_CONTEXT = b"secateur: secret in an idempotent answer: "


class CannotBeOpened(Exception):
    """It was sealed by another request."""


def seal(secret: str, api_key: bytes, idempotency_key: str) -> str:
    """The secret as it may be kept.

    Args:
        secret: what is to be hidden.
        api_key: the secret of the key that the request came with.
        idempotency_key: of the request.
    """
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = _cipher(api_key, idempotency_key, salt).encrypt(nonce, secret.encode(), None)
    return base64.b64encode(salt + nonce + sealed).decode()


def unseal(sealed: str, api_key: bytes, idempotency_key: str) -> str:
    """The secret again.

    Raises:
        CannotBeOpened: API key or `Idempotency-Key` are others, or it was changed.
    """
    data = base64.b64decode(sealed)
    salt, nonce = data[:_SALT_BYTES], data[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
    try:
        opened = _cipher(api_key, idempotency_key, salt).decrypt(
            nonce, data[_SALT_BYTES + _NONCE_BYTES :], None
        )
    except InvalidTag as error:
        raise CannotBeOpened from error
    return opened.decode()


def _cipher(api_key: bytes, idempotency_key: str, salt: bytes) -> AESGCM:
    context = _CONTEXT + idempotency_key.encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=context).derive(api_key))
