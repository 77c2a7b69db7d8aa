"""Nobody gets in without a key: everything under `/v1/` is refused before a byte of a body is read.

An ASGI layer and not a dependency of each endpoint, so that no endpoint can be forgotten, and a
body of a stranger is never parsed.
"""

from __future__ import annotations

import hashlib

from anyio import to_thread
from sqlalchemy.exc import OperationalError
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persistence import api_keys
from persistence.records import utc_now
from service.access.key_cache import Caller
from service.access.problems import KeyExpired
from service.access.rate_limits import TooManyRequests
from service.access.scopes import GUARDED
from service.context import Backend
from service.logs import logger
from service.problems import ProblemError, Unauthorized
from service.problems.handlers import DatabaseUnavailable

_log = logger("secateur.access")


class Authentication:
    """ASGI middleware that finds out who is calling and notes it in the request's state.

    Args:
        app: the application within.
        backend: where keys are looked up.
    """

    def __init__(self, app: ASGIApp, backend: Backend) -> None:
        self.app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            caller = await self._caller(scope)
        except Unauthorized as problem:
            refusal = await self._refusal(scope, problem)
            await refusal.response(scope["path"])(scope, receive, send)
            return
        except OperationalError:
            _log.exception("a key cannot be looked up")
            await DatabaseUnavailable().response(scope["path"])(scope, receive, send)
            return
        state["caller"] = caller
        state["key_id"] = caller.key_id  # for the log line
        standing = await self._backend.rates.of_key(caller.key_id)
        if standing is None:
            await self.app(scope, receive, send)
            return
        if standing.exceeded:
            refusal = TooManyRequests(standing, "An API key")
            await refusal.response(scope["path"])(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(standing.headers())
            await send(message)

        await self.app(scope, receive, told)

    async def _refusal(self, scope: Scope, problem: Unauthorized) -> ProblemError:
        address = scope["client"][0] if scope.get("client") else ""
        standing = await self._backend.rates.of_failure(address)
        if standing is not None and standing.exceeded:
            return TooManyRequests(standing, "An address without a key that opens")
        return problem

    async def _caller(self, scope: Scope) -> Caller:
        secret = _bearer(scope)
        digest = hashlib.sha256(secret).digest()
        caller = self._backend.keys.get(digest, utc_now())
        if caller is None:
            caller = await to_thread.run_sync(self._verify, secret, digest)
        return caller

    def _verify(self, secret: bytes, digest: bytes) -> Caller:
        generation = self._backend.keys.generation
        with self._backend.database.session(read_only=True) as session:
            key = api_keys.find(session, secret.decode("latin-1"))
        if key is None or key.revoked_at is not None:
            raise Unauthorized("This API key is unknown or revoked.", error="invalid_token")
        if key.expires_at is not None and key.expires_at <= utc_now():
            raise KeyExpired(key.expires_at)
        caller = Caller(key.tenant_id, key.id, frozenset(key.scopes))
        self._backend.keys.put(digest, caller, key.expires_at, generation)
        return caller


def _bearer(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, secret = value.strip().partition(b" ")
            if kind.lower() == b"bearer" and secret.strip():
                found: bytes = secret.strip()
                return found
    raise Unauthorized("The request carries no API key.")
