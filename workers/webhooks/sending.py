"""One attempt: signed by Standard Webhooks, sent by HTTP, never followed elsewhere.

`webhook-id` is the same at every attempt, `webhook-timestamp` is this attempt's, and
`webhook-signature` is `v1,` and base64 of HMAC-SHA-256 over `id.timestamp.body`, once for each
secret in force.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
from standardwebhooks import Webhook

from persistence.webhooks.addresses import Network
from persistence.webhooks.deliveries import Attempt, Due
from workers.webhooks.addresses import AddressRefused, resolve

_SHOWN_BYTES = 1024
_PORTS = {"http": 80, "https": 443}
_AGENT = f"Secateur-Webhooks/{version('secateur-server')}"


def sender(timeout_seconds: float, ca_file: Path | None = None) -> httpx.AsyncClient:
    """The HTTP client: no redirects, no proxies of the environment, no cookies kept.

    Args:
        timeout_seconds: of each step; `send` bounds the whole.
        ca_file: certificates of authorities that are trusted besides the public ones (PEM).
    """
    trusted = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        trusted.load_verify_locations(ca_file)
    return httpx.AsyncClient(
        verify=trusted,
        timeout=timeout_seconds,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=0),
    )


def signed_headers(due: Due, now: datetime) -> dict[str, str]:
    """The headers of one attempt."""
    signatures = [Webhook(secret).sign(due.id, now, due.payload) for secret in due.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": _AGENT,
        "webhook-id": due.id,
        "webhook-timestamp": str(math.floor(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def send(
    client: httpx.AsyncClient,
    due: Due,
    *,
    allowed: Sequence[Network],
    timeout_seconds: float,
) -> Attempt:
    """Send once and say what came of it; raises nothing for what a receiver can cause.

    Args:
        client: from `sender`.
        due: the message.
        allowed: networks that may be called though they are not public.
        timeout_seconds: for everything: name, connection, request, answer.
    """
    started = time.monotonic()
    status: int | None = None
    shown, retry_after = "", None
    try:
        async with asyncio.timeout(timeout_seconds):
            request = await _request(client, due, allowed)
            response = await client.send(request, stream=True)
            try:
                status = response.status_code
                retry_after = _seconds(response.headers.get("retry-after", ""))
                shown = await _beginning(response)
            finally:
                await response.aclose()
        error = "" if response.is_success else _refusal(response)
    except AddressRefused as refused:
        error = str(refused)
    except TimeoutError:
        error = f"no answer within {timeout_seconds:g} seconds"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    elapsed = round((time.monotonic() - started) * 1000)
    return Attempt(status, error[:500], shown, elapsed, retry_after)


async def _request(
    client: httpx.AsyncClient, due: Due, allowed: Sequence[Network]
) -> httpx.Request:
    url = httpx.URL(due.url)
    port = url.port or _PORTS[url.scheme]
    address = await resolve(url.host, port, allowed, tls=url.scheme == "https")
    return client.build_request(
        "POST",
        url.copy_with(host=address),
        content=due.payload.encode(),
        headers={**signed_headers(due, datetime.now(UTC)), "Host": url.netloc.decode()},
        # the certificate must be the name's, though the connection goes to the address
        extensions={"sni_hostname": url.host},
    )


async def _beginning(response: httpx.Response) -> str:
    """The first bytes of the answer, printable; the rest is not read."""
    taken = b""
    async for chunk in response.aiter_raw():
        taken += chunk
        if len(taken) >= _SHOWN_BYTES:
            break
    text = taken[:_SHOWN_BYTES].decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _refusal(response: httpx.Response) -> str:
    if response.is_redirect:
        return f"the answer was a redirect ({response.status_code}), which is not followed"
    return f"the answer was {response.status_code}"


def _seconds(header: str) -> float | None:
    return float(header) if header.isascii() and header.isdigit() and len(header) < 10 else None
