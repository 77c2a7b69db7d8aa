"""The outermost layer of a request: its id, its log line, its size, its last resort.

Written against ASGI itself: a middleware that holds requests and responses as objects would
buffer, and break streaming in either direction.
"""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from persistence.settings import Settings
from service.logs import logger
from service.problems import ServerProblem
from service.request_limits import MAX_BODY_BYTES, bounded, fault_of
from service.response_headers import ResponseHeaders

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_log = logger("secateur.request")

UPLOADS = re.compile(r"/v1/(models|datasets|uploads/[^/]+/parts/[^/]+)")
"""Paths that take files."""


class RequestGuard:
    """ASGI middleware around the whole application.

    Args:
        app: the application within.
        settings: for the headers of answers and the patience with bodies.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._headers = ResponseHeaders(settings)
        self._idle_seconds = settings.body_idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        state = scope.setdefault("state", {})
        started = time.perf_counter()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                self._headers.add(headers, scope["path"])
            await send(message)

        state["request_id"] = request_id
        size = None if UPLOADS.fullmatch(scope["path"]) else MAX_BODY_BYTES
        receive = bounded(receive, size=size, idle_seconds=self._idle_seconds)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request_id, method=scope["method"], path=scope["path"]
        )
        try:
            if (fault := fault_of(scope)) is not None:
                await fault.response(scope["path"])(scope, receive, observed)
                return
            await self.app(scope, receive, observed)
        except ClientDisconnect:
            _log.info("client went away")
        # the edge: whatever was not foreseen is logged whole and answered without internals
        except Exception:
            _log.exception("request failed")
            if status:
                raise  # half an answer is out; closing the connection is the only honest end
            await ServerProblem(request_id).response(scope["path"])(scope, receive, observed)
        finally:
            elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
            _log.info("request", status=status, elapsed_ms=elapsed_ms, key_id=state.get("key_id"))


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else secrets.token_hex(8)
