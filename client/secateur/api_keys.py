"""API keys in the SDK: `Secateur().keys`. All of it needs a key with the scope `admin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from secateur.answers import pages, parse
from secateur.resources import ApiKey, ApiKeyScope
from secateur.transport import Transport

_PATH = "/v1/api-keys"


class ApiKeys:
    """The API keys of the tenant. Methods raise what those of `secateur.client.Secateur` raise."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        name: str = "",
        *,
        scopes: Sequence[ApiKeyScope] | None = None,
        expires_at: datetime | None = None,
    ) -> ApiKey:
        """Make a key; `secret` is shown this once.

        Args:
            name: what it is called in lists.
            scopes: what it may do; as much as the key in use when left out.
            expires_at: with a time zone; never when left out.
        """
        body: dict[str, Any] = {"name": name}
        if scopes is not None:
            body["scopes"] = list(scopes)
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return parse(ApiKey, self._send("POST", _PATH, json=body))

    def list(self) -> Iterator[ApiKey]:
        """All keys, newest first, revoked ones included."""
        return pages(self._transport, _PATH, ApiKey, {})

    def get(self, key: ApiKey | str) -> ApiKey:
        """One key."""
        return parse(ApiKey, self._send("GET", _of(key)))

    def rotate(self, key: ApiKey | str, *, grace_seconds: int = 86_400) -> ApiKey:
        """A key in place of this one, which opens for the grace time still."""
        body = {"grace_seconds": grace_seconds}
        return parse(ApiKey, self._send("POST", f"{_of(key)}/rotate", json=body))

    def revoke(self, key: ApiKey | str, *, force: bool = False) -> None:
        """Close a key; the last one with the scope `admin` only with `force`."""
        self._send("DELETE", _of(key), params={"force": "true"} if force else None)

    def _send(self, method: str, path: str, **options: Any) -> bytes:
        return self._transport.request(method, path, **options).content


def _of(key: ApiKey | str) -> str:
    return f"{_PATH}/{key if isinstance(key, str) else key.id}"
