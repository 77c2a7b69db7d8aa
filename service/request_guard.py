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

from service.logs import logger
from service.problems import BadRequest, ProblemError, ServerProblem

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_log = logger("secateur.request")

MAX_BODY_BYTES = 4 * 2**20
"""Of every request but uploads, whose limits are settings."""
UPLOADS = re.compile(r"/v1/(models|datasets|uploads/[^/]+/parts/[^/]+)")
"""Paths that take files."""


class BodyTooLarge(ProblemError):
    """A JSON body beyond all reason."""

    status = 413
    type = "body-too-large"
    title = "The request body is too large"


class RequestGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        if not UPLOADS.fullmatch(scope["path"]):
            receive = _limited(receive)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(
            request_id=request_id, method=scope["method"], path=scope["path"]
        )
        try:
            if b"%00" in scope["query_string"] or "\0" in scope["path"]:
                await _nul().response(scope["path"])(scope, receive, observed)
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


def _nul() -> BadRequest:
    return BadRequest(
        "The URL has a NUL character (`%00`).", hint="No id, name or filter holds one; take it out."
    )


def _limited(receive: Receive) -> Receive:
    total = 0

    async def receive_limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY_BYTES:
            raise BodyTooLarge(
                f"The body is larger than {MAX_BODY_BYTES} bytes.",
                hint="Send models and datasets to `POST /v1/models` and `POST /v1/datasets`, or in "
                "parts to `POST /v1/uploads`.",
            )
        return message

    return receive_limited
