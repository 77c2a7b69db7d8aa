"""The events of a job, live, over server-sent events.

A stream that breaks is opened again after the last event seen (`Last-Event-ID`), so that every
event arrives once and in order. It ends with the job.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from httpx_sse import EventSource, SSEError

from secateur.errors import ApiError, UnexpectedAnswer
from secateur.resources import TERMINAL, Event
from secateur.transport import BUSY, Backoff, Transport


def follow(transport: Transport, job_id: str, after: int = 0) -> Iterator[Event]:
    """Events of a job with a `seq` above `after`, as they happen, until it ends.

    Raises:
        ServerUnreachable: the server stopped answering, after all retries.
        ApiError: the server refused.
    """
    backoff = Backoff()
    while True:
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        try:
            with transport.stream(f"/v1/jobs/{job_id}/events", headers) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return  # the job has ended and every event was seen
                for message in EventSource(response).iter_sse():
                    if not message.data:
                        continue
                    event = Event.model_validate_json(message.data)
                    if event.seq <= after:
                        continue
                    after = event.seq
                    backoff.reset()
                    yield event
                    if event.type in TERMINAL:
                        return
            error: Exception = httpx.RemoteProtocolError("the event stream ended before the job")
        except SSEError as broken:
            raise UnexpectedAnswer(
                f"{transport.url} does not stream events: {broken}",
                hint="check that the URL is that of a Secateur server",
            ) from broken
        except httpx.TransportError as broken:
            error = broken
        except ApiError as refused:
            if refused.status not in BUSY:
                raise
            error = refused
        backoff.pause(transport.unreachable(error))
