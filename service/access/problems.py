"""Why a request is not carried out for who sent it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from service.problems import ProblemError, Unauthorized


class KeyExpired(Unauthorized):
    """The key was good once."""

    def __init__(self, expired_at: datetime) -> None:
        super().__init__(
            f"This API key expired at {expired_at:%Y-%m-%dT%H:%M:%SZ}.", error="invalid_token"
        )
        self.hint = "Use another key, or have one made by a key with the scope `admin`."


class ScopeMissing(ProblemError):
    """The key is good, but not for this (RFC 6750, 3.1)."""

    status = 403
    type = "insufficient-scope"
    title = "The API key may not do this"

    def __init__(self, scope: str, held: Collection[str]) -> None:
        has = ", ".join(f"`{one}`" for one in sorted(held)) or "none"
        super().__init__(
            f"This needs the scope `{scope}`; the API key has {has}.",
            hint=f"Use a key with the scope `{scope}`; `POST /v1/api-keys` makes one.",
            headers={
                "WWW-Authenticate": 'Bearer realm="secateur", error="insufficient_scope", '
                f'scope="{scope}"'
            },
        )
