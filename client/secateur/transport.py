"""HTTP with bounded retries, and problem+json as errors.

Requests that may be repeated are: GET, PUT and DELETE always; POST because every POST that
creates carries an `Idempotency-Key`, and cancelling twice is cancelling once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from secateur.discovery import START_HINT, Endpoint
from secateur.errors import ApiError, SecateurError, ServerUnreachable, UnexpectedAnswer
from secateur.resources import Problem

ATTEMPTS = 5
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
BUSY = frozenset({429, 502, 503, 504})
TIMEOUT = httpx.Timeout(connect=5, read=120, write=120, pool=5)


class RedirectFailed(Exception):
    """The server named an address that does not give the file."""


class Backoff:
    """Counts failures in a row and sleeps longer after each; gives up after `ATTEMPTS`."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._failures = 0

    def reset(self) -> None:
        """Something worked: start counting again."""
        self._failures = 0

    def pause(self, error: SecateurError, at_least: float = 0.0) -> None:
        """Sleep before the next attempt, or raise `error` when there have been enough."""
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise error
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))
        self._sleep(min(LONGEST_PAUSE, max(at_least, pause * random.uniform(0.5, 1.0))))  # noqa: S311 - jitter needs no secrecy


class Transport:
    """An HTTP connection to one server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.url = endpoint.url
        headers = {"User-Agent": "secateur"}
        if endpoint.api_key:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        loopback = urlsplit(endpoint.url).hostname in ("127.0.0.1", "localhost", "::1")
        self._secure = urlsplit(endpoint.url).scheme == "https"
        self._http = httpx.Client(
            base_url=endpoint.url,
            headers=headers,
            timeout=TIMEOUT,
            trust_env=not loopback,  # a proxy cannot reach this machine's loopback address
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def unreachable(self, error: Exception) -> ServerUnreachable:
        """The error for a server that does not answer."""
        return ServerUnreachable(
            f"no answer from {self.url}: {error or type(error).__name__}",
            hint=f"check that the server runs there, or {START_HINT}",
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Callable[[], Iterator[bytes]] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request, repeat it where that is safe, and return a successful answer.

        Args:
            method: the HTTP method.
            path: below the server's URL.
            body: makes the streamed body afresh for every attempt.
            options: passed on to httpx.

        Raises:
            ApiError: the server refused.
            ServerUnreachable: it did not answer.
        """
        backoff = Backoff()
        while True:
            try:
                if body is not None:
                    options["content"] = body()
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                backoff.pause(self.unreachable(error))
                continue
            except httpx.InvalidURL as error:
                raise self.unreachable(error) from error
            if response.status_code in BUSY:
                backoff.pause(api_error(response), retry_after(response))
                continue
            if response.is_error or response.is_redirect:
                raise api_error(response)
            return response

    @contextmanager
    def stream(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """One attempt at a streamed GET; the caller repeats it from where it got to."""
        with self._http.stream("GET", path, headers=headers) as response:
            if response.is_error or response.is_redirect:
                response.read()
                raise api_error(response)
            yield response

    @contextmanager
    def stream_from_anywhere(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """As `stream`, but the server may send us to where the file lies.

        That host gets the headers given here and nothing of ours: no API key. A server that was
        reached with TLS is not left for one without.

        Raises:
            RedirectFailed: the file could not be had from there; ask for it without.
        """
        asked = {**headers, "Prefer": "redirect"}
        with self._http.stream("GET", path, headers=asked) as response:
            if response.status_code != httpx.codes.TEMPORARY_REDIRECT:
                if response.is_error or response.is_redirect:
                    response.read()
                    raise api_error(response)
                yield response
                return
            address = response.headers.get("Location", "")
        if urlsplit(address).scheme != "https" and (
            self._secure or urlsplit(address).scheme != "http"
        ):
            raise RedirectFailed
        # its name is its content there, and the other host has validators of its own
        headers = {name: value for name, value in headers.items() if name != "If-Range"}
        try:
            with (
                httpx.Client(timeout=TIMEOUT, headers={"User-Agent": "secateur"}) as elsewhere,
                elsewhere.stream("GET", address, headers=headers) as response,
            ):
                if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                    raise RedirectFailed
                yield response
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise RedirectFailed from error


def retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait, 0 when it does not."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def api_error(response: httpx.Response) -> SecateurError:
    """The error an unsuccessful answer stands for."""
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    if kind == "application/problem+json":
        try:
            return ApiError(Problem.model_validate_json(response.content))
        except ValidationError:
            pass  # a proxy's problem+json may lack our fields; reported below with its body
    return UnexpectedAnswer(
        f"{response.request.method} {response.request.url} answered {response.status_code} "
        f"with {kind or 'no content type'}: {response.text[:200]!r}",
        hint="check that the URL is that of a Secateur server",
    )
