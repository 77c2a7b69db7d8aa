from __future__ import annotations

import pytest
from secateur import transport
from secateur.discovery import Endpoint
from secateur.errors import ApiError, ServerUnreachable, UnexpectedAnswer
from secateur.transport import ATTEMPTS, Transport

from tests.client.faulty_server import Handler, answer, refuse, serving
from tests.services import free_port


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def test_busy_and_broken_are_repeated_until_they_work() -> None:
    with serving(refuse(503), hang_up, refuse(429), answer({"x": 1})) as server:
        response = Transport(Endpoint(server.url, "secret")).request("GET", "/thing")
    assert response.json() == {"x": 1}
    assert [seen.path for seen in server.requests] == ["/thing"] * 4
    assert server.requests[0].headers["Authorization"] == "Bearer secret"


def test_retries_are_bounded() -> None:
    with serving(refuse(503)) as server, pytest.raises(ApiError) as caught:
        Transport(Endpoint(server.url, None)).request("GET", "/thing")
    assert caught.value.status == 503
    assert len(server.requests) == ATTEMPTS


def test_a_refusal_is_not_repeated_and_carries_the_hint() -> None:
    with serving(refuse(422)) as server, pytest.raises(ApiError) as caught:
        Transport(Endpoint(server.url, None)).request("POST", "/thing")
    assert len(server.requests) == 1
    assert caught.value.hint == "do that"
    assert "do that" in str(caught.value)


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transport.Backoff.__init__, "__defaults__", (pauses.append,))
    with serving(refuse(429, Retry_After="7"), answer({})) as server:
        Transport(Endpoint(server.url, None)).request("GET", "/thing")
    assert pauses == [7.0]


def test_the_body_is_made_afresh_for_every_attempt() -> None:
    with serving(refuse(503), answer({})) as server:
        Transport(Endpoint(server.url, None)).request(
            "POST", "/thing", body=lambda: iter([b"ab", b"c"]), headers={"Content-Length": "3"}
        )
    assert [seen.body for seen in server.requests] == [b"abc", b"abc"]


def test_no_server_says_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachable, match=url) as caught:
        Transport(Endpoint(url, None)).request("GET", "/thing")
    assert "secateur serve" in caught.value.hint


def test_an_error_of_something_else_is_named_as_such() -> None:
    with (
        serving(lambda handler: handler.send(404, b"<html>", Content_Type="text/html")) as server,
        pytest.raises(UnexpectedAnswer, match="404 with text/html"),
    ):
        Transport(Endpoint(server.url, None)).request("GET", "/thing")
