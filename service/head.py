"""HEAD for every path that takes GET (RFC 9110, 9.3.2): the same answer without its body.

The framework adds HEAD to no operation of its own. Here the request is served as a GET and called
off when its headers are out, before a byte of a file is read or an event stream is waited for.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):
    """The headers are sent; nothing else is wanted of the application."""


class HeadAsGet:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _Answered

        try:
            # an address that was made for GET answers no HEAD, so none is given
            kept = [(name, value) for name, value in scope["headers"] if name != b"prefer"]
            as_get = {**scope, "method": "GET", "headers": kept}
            await self.app(as_get, receive, send_headers)
        except _Answered:
            return
