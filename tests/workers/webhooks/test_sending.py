"""One attempt against a real server: signed, bounded, never led elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from persistence.webhooks.addresses import networks
from persistence.webhooks.deliveries import Attempt, Due
from persistence.webhooks.subscriptions import new_secret
from tests.workers.webhooks.receiver import Receiver, drip, hang_up, receiver, status
from workers.webhooks.sending import send, sender

LOOPBACK = "127.0.0.0/8"
PAYLOAD = json.dumps({"type": "job.succeeded", "data": {"name": "größer"}}, ensure_ascii=False)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def attempt(url: str, *secrets: str, allowed: str = LOOPBACK, seconds: float = 5.0) -> Attempt:
    due = Due("msg_1", "whk_1", url, secrets or (new_secret(),), PAYLOAD)

    async def run() -> Attempt:
        async with sender(seconds) as client:
            return await send(client, due, allowed=networks(allowed), timeout_seconds=seconds)

    return asyncio.run(run())


def test_a_receiver_verifies_what_was_sent(server: Receiver) -> None:
    secret = new_secret()
    done = attempt(server.url, secret)
    assert done.delivered
    assert done.status_code == 204
    ((headers, body),) = server.got
    assert Webhook(secret).verify(body, headers) == json.loads(PAYLOAD)
    assert body == PAYLOAD.encode()
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, {**headers, "webhook-id": "msg_2"})


def test_the_signature_of_the_standard(server: Receiver) -> None:
    """HMAC-SHA-256 over `id.timestamp.body`, by hand."""
    secret = new_secret()
    attempt(server.url, secret)
    ((headers, body),) = server.got
    signed = f"msg_1.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


def test_both_secrets_sign_while_one_replaces_the_other(server: Receiver) -> None:
    old, new = new_secret(), new_secret()
    attempt(server.url, new, old)
    ((headers, body),) = server.got
    for secret in (old, new):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("code", [400, 404, 410, 429, 500, 503])
def test_what_is_not_2xx_is_a_failure(server: Receiver, code: int) -> None:
    server.answers = [status(code, b"no \x00 \xff thanks", Retry_After="120")]
    done = attempt(server.url)
    assert not done.delivered
    assert done.status_code == code
    assert done.error == f"the answer was {code}"
    assert done.response == "no \ufffd \ufffd thanks"
    assert done.retry_after_seconds == 120


def test_a_redirect_is_not_followed(server: Receiver) -> None:
    server.answers = [status(307, Location=server.url)]
    done = attempt(server.url)
    assert "redirect" in done.error
    assert len(server.got) == 1


def test_a_receiver_that_hangs_up(server: Receiver) -> None:
    server.answers = [hang_up]
    done = attempt(server.url)
    assert done.status_code is None
    assert "RemoteProtocolError" in done.error or "ReadError" in done.error


def test_a_receiver_that_never_ends(server: Receiver) -> None:
    """Every single read is quick; the whole is bounded all the same."""
    stop = threading.Event()
    server.answers = [drip(stop)]
    try:
        done = attempt(server.url, seconds=0.5)
    finally:
        stop.set()
    assert done.error == "no answer within 0.5 seconds"


def test_a_long_answer_is_not_read(server: Receiver) -> None:
    server.answers = [status(200, b"x" * 5_000_000)]
    done = attempt(server.url)
    assert done.delivered
    assert done.response == "x" * 1024


def test_nobody_listens(server: Receiver) -> None:
    assert "ConnectError" in attempt("http://127.0.0.1:1/hook").error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1"])
def test_this_machine_is_not_called_unless_allowed(server: Receiver, host: str) -> None:
    """Whatever way the address is written."""
    for scheme in ("http", "https"):
        done = attempt(f"{scheme}://{host}:{server.port}/hook", allowed="")
        assert "may not call" in done.error or "no address" in done.error
    assert server.got == []


def test_allowed_networks_may_be_called_by_name(server: Receiver) -> None:
    assert attempt(f"http://localhost:{server.port}/hook").delivered


def test_a_name_without_an_address() -> None:
    assert "no address" in attempt("https://nowhere.invalid/hook").error


def test_proxies_of_the_environment_are_not_used(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert attempt(server.url).delivered
