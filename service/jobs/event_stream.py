"""Events of a job as server-sent events: what was, then what comes, until the job ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from anyio import to_thread
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from secateur.resources import TERMINAL, Event

from persistence import job_output, jobs
from service.context import Backend

_BATCH = 500
HEARTBEAT_SECONDS = 15.0


async def stream(backend: Backend, tenant_id: str, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Events above `after` in wire form, each with its number as id, so that a client that lost
    the connection goes on where it was (`Last-Event-ID`). Ends after the job's last event."""
    with backend.changes.watch(tenant_id, job_id) as watch:
        while True:
            ended, events = await to_thread.run_sync(
                read_batch, backend, tenant_id, job_id, after, _BATCH
            )
            for event in events:
                after = event.seq
                yield format_sse_event(
                    event=event.type, id=str(event.seq), data_str=event.model_dump_json()
                )
            if len(events) == _BATCH:
                continue
            if ended:
                return
            if await watch.moved(HEARTBEAT_SECONDS) is None:
                yield KEEPALIVE_COMMENT


def read_batch(
    backend: Backend, tenant_id: str, job_id: str, after: int, limit: int
) -> tuple[bool, Sequence[Event]]:
    """Whether the job had ended, and its next events.

    The status is read first: the event of a job's end is written with its status, so when the
    job had ended the events read after are all there will be.
    """
    with backend.database.session(read_only=True) as session:
        record = jobs.get(session, tenant_id, job_id)
        ended = record is None or record.status in TERMINAL
        found = job_output.events(session, tenant_id, job_id, after=after, limit=limit)
        return ended, [Event.model_validate(one) for one in found]
