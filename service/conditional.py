"""Conditional GET of JSON (RFC 9110, 13): an `ETag` on every answer, and 304 where the client has
it.

The tag is the SHA-256 of the body, unless the endpoint knows a cheaper one and set it. Written
against ASGI itself: only JSON bodies are held, and those in one piece; downloads have tags of their
own and streams pass by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOT_IN_304 = ("content-length", "content-type")
UNCHANGED: dict[str, Any] = {
    "description": "The client's copy (`If-None-Match`) is the current one."
}


def matches(if_none_match: str, etag: str) -> bool:
    """Whether a header names this tag (weak comparison)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag.removeprefix("W/") in tags or "*" in tags


class ConditionalGet:
    """ASGI middleware around the endpoints."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        known = Headers(scope=scope).get("if-none-match", "")
        start: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_json(message):
                start = message  # held until it is known whether the body is in one piece
                return
            if start is not None:
                first, start = start, None
                if not message.get("more_body", False):
                    message = _tag(first, message, known)
                await send(first)
            await send(message)

        await self.app(scope, receive, tagged)


def _is_json(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    return (
        start["status"] == 200
        and headers.get("content-type", "").partition(";")[0] == "application/json"
        and "no-store" not in headers.get("cache-control", "")
    )


def _tag(start: Message, message: Message, known: str) -> Message:
    """Put the tag into the headers; returns the body to send, empty where the client has it."""
    headers = MutableHeaders(scope=start)
    body: bytes = message.get("body", b"")
    etag = headers.get("etag") or f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers["ETag"] = etag
    headers.setdefault("Cache-Control", "private, no-cache")
    if not known or not matches(known, etag):
        return message
    start["status"] = 304
    for name in _NOT_IN_304:
        if name in headers:
            del headers[name]
    return {**message, "body": b""}


def describe_tags(paths: Mapping[str, Any]) -> None:
    """Write tags and 304 into the description of every GET that answers with JSON."""
    for methods in paths.values():
        responses = methods.get("get", {}).get("responses", {})
        if "application/json" in responses.get("200", {}).get("content", {}):
            headers = responses["200"].setdefault("headers", {})
            headers.setdefault(
                "ETag",
                {"description": "For `If-None-Match`.", "schema": {"type": "string"}},
            )
            responses.setdefault("304", UNCHANGED)
