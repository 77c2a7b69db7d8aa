"""Every request that may change something leaves an entry in the audit log.

`begin` runs before the endpoint, in a transaction of its own; when it fails nothing is changed.
The layer around the application completes the entry before the answer is sent. When that fails the
entry stays, without an outcome, and the log of the process has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from anyio import to_thread
from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persistence import audit
from service.access.key_cache import Caller
from service.context import Backend
from service.logs import logger

_log = logger("secateur.audit")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class _Entry:
    number: int
    tenant_id: str
    action: str
    target: str


async def begin(request: Request, caller: Caller) -> None:
    """Make the entry of a request that may change something."""
    if request.method in _READING:
        return
    action = str(request.scope["route"].name)
    target = "/".join(str(value) for value in request.path_params.values())
    backend: Backend = request.app.state.backend
    client = request.client
    details = {
        "tenant_id": caller.tenant_id,
        "key_id": caller.key_id,
        "action": action,
        "target": target,
        "request_id": request.state.request_id,
        "address": "" if client is None else client.host,
    }

    def write() -> int:
        with backend.database.session() as session:
            return audit.begin(session, **details)

    number = await to_thread.run_sync(write)
    request.state.audit = _Entry(number, caller.tenant_id, action, target)


class AuditTrail:
    """ASGI middleware that completes entries.

    Args:
        app: the application within.
        backend: where entries are kept.
    """

    def __init__(self, app: ASGIApp, backend: Backend) -> None:
        self.app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self.app(scope, receive, send)
            return

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                made = Headers(raw=message["headers"]).get("location", "").rpartition("/")[2]
                await self._finish(scope, message["status"], made)
            await send(message)

        try:
            await self.app(scope, receive, completed)
        except Exception:
            await self._finish(scope, 500, "")
            raise

    async def _finish(self, scope: Scope, status: int, made: str) -> None:
        entry: _Entry | None = scope.get("state", {}).pop("audit", None)
        if entry is None:
            return
        target = entry.target or made

        def write() -> None:
            with self._backend.database.session() as session:
                audit.finish(session, entry.tenant_id, entry.number, status=status, target=target)

        try:
            await to_thread.run_sync(write)
        except SQLAlchemyError:
            _log.exception(
                "an audit entry could not be completed",
                entry=entry.number, action=entry.action, target=target, status=status,
            )  # fmt: skip
