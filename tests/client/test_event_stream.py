from __future__ import annotations

import json
from typing import Any

import pytest
from secateur import transport
from secateur.discovery import Endpoint
from secateur.errors import ServerUnreachable, UnexpectedAnswer
from secateur.event_stream import follow
from secateur.transport import ATTEMPTS, Transport

from tests.client.faulty_server import Answer, Handler, answer, refuse, serving


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


def stream(*events: tuple[int, str], comment: bool = True) -> Answer:
    """Send these events and end the stream."""

    def message(seq: int, kind: str) -> str:
        data: dict[str, Any] = {"seq": seq, "type": kind, "created_at": "2026-01-01T00:00:00Z"}
        data["data"] = {"text": "two\u2028lines"}
        return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"

    body = (": ping\n\n" if comment else "") + "".join(message(*event) for event in events)

    def send(handler: Handler) -> None:
        handler.send(200, body.encode(), Content_Type="text/event-stream")

    return send


def kinds(url: str, after: int = 0) -> list[tuple[int, str]]:
    events = list(follow(Transport(Endpoint(url, None)), "job_1", after))
    assert all(event.data == {"text": "two\u2028lines"} for event in events)
    return [(event.seq, event.type) for event in events]


def test_a_broken_stream_goes_on_after_the_last_event() -> None:
    with serving(
        stream((1, "queued"), (2, "started")),
        refuse(503),
        stream((2, "started"), (3, "progress")),
        stream((4, "succeeded")),
    ) as server:
        assert kinds(server.url) == [
            (1, "queued"), (2, "started"), (3, "progress"), (4, "succeeded"),
        ]  # fmt: skip
    asked = [seen.headers.get("Last-Event-ID") for seen in server.requests]
    assert asked == [None, "2", "2", "3"]


def test_a_failed_job_ends_the_stream() -> None:
    with serving(stream((8, "failed"))) as server:
        assert kinds(server.url, after=7) == [(8, "failed")]
    assert server.requests[0].headers["Last-Event-ID"] == "7"


def test_no_content_means_that_every_event_was_seen() -> None:
    with serving(stream((1, "queued")), lambda handler: handler.send(204)) as server:
        assert kinds(server.url) == [(1, "queued")]


def test_a_stream_that_never_says_anything_is_given_up() -> None:
    with serving(stream()) as server, pytest.raises(ServerUnreachable, match="ended before"):
        kinds(server.url)
    assert len(server.requests) == ATTEMPTS


def test_an_answer_that_is_no_stream_is_named() -> None:
    with serving(answer({})) as server, pytest.raises(UnexpectedAnswer, match="stream events"):
        kinds(server.url)
