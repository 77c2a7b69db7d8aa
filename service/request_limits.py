"""How large, how long and how slow a request may be, whatever it asks for."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope

from service.problems import BadRequest, ProblemError

MAX_BODY_BYTES = 4 * 2**20
"""Of every request but uploads, whose limits are settings."""
MAX_URL_BYTES = 8192
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024


class BodyTooLarge(ProblemError):
    """A JSON body beyond all reason."""

    status = 413
    type = "body-too-large"
    title = "The request body is too large"


class BodyTooSlow(ProblemError):
    """The body stopped coming."""

    status = 408
    type = "body-too-slow"
    title = "The request body did not arrive"


class UrlTooLong(ProblemError):
    """A URL beyond all reason."""

    status = 414
    type = "url-too-long"
    title = "The URL is too long"


class HeadersTooLarge(ProblemError):
    """Header fields beyond all reason (RFC 6585)."""

    status = 431
    type = "headers-too-large"
    title = "The request has too many header fields"


def fault_of(scope: Scope) -> ProblemError | None:
    """What is wrong with a request's URL and headers, if anything is."""
    if b"%00" in scope["query_string"] or "\0" in scope["path"]:
        return BadRequest(
            "The URL has a NUL character (`%00`).",
            hint="No id, name or filter holds one; take it out.",
        )
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL_BYTES:
        return UrlTooLong(
            f"The URL is longer than {MAX_URL_BYTES} bytes.", hint="Send less in the query."
        )
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        return HeadersTooLarge(
            f"The request has {len(headers)} header fields of {size} bytes.",
            hint=f"At most {MAX_HEADERS} fields and {MAX_HEADER_BYTES} bytes are read.",
        )
    return None


def bounded(receive: Receive, *, size: int | None, idle_seconds: float) -> Receive:
    """`receive` that refuses a body which is too large or stops coming.

    Args:
        receive: of the server.
        size: most bytes; None where an endpoint has a limit of its own.
        idle_seconds: the longest pause within the body.
    """
    total = 0
    complete = False

    async def receive_bounded() -> Message:
        nonlocal total, complete
        if complete:
            return await receive()  # what comes now is the end of the connection, which may be far
        try:
            message = await asyncio.wait_for(receive(), idle_seconds)
        except TimeoutError:
            raise BodyTooSlow(
                f"Nothing of the body came for {idle_seconds:g} s.",
                hint="Send it again; large files are sent in parts (`POST /v1/uploads`).",
                headers={"Connection": "close"},
            ) from None
        complete = not message.get("more_body", False)
        total += len(message.get("body", b""))
        if size is not None and total > size:
            raise BodyTooLarge(
                f"The body is larger than {size} bytes.",
                hint="Send models and datasets to `POST /v1/models` and `POST /v1/datasets`.",
            )
        return message

    return receive_bounded
