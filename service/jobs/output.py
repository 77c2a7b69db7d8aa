"""What a job leaves behind, as the API shows it."""

from __future__ import annotations

from collections.abc import Iterator

from secateur.resources import TERMINAL, Artifact, Event, Metric, Page

from persistence import job_output
from persistence.records import ArtifactRecord
from service.context import Backend
from service.jobs.event_stream import read_batch
from service.jobs.problems import JobUnfinished, ReportMissing
from service.jobs.service import get

_LOG_CHUNKS = 100


def event_page(
    backend: Backend, tenant_id: str, job_id: str, *, after: int, limit: int
) -> Page[Event]:
    """Events above `after`, oldest first; the cursor is the next `after`."""
    get(backend, tenant_id, job_id)
    _, events = read_batch(backend, tenant_id, job_id, after, limit + 1)
    shown = list(events[:limit])
    more = len(events) > limit
    return Page(data=shown, has_more=more, next_cursor=str(shown[-1].seq) if more else None)


def metric_page(
    backend: Backend, tenant_id: str, job_id: str, *, after: int, limit: int, name: str | None
) -> Page[Metric]:
    """Metrics above `after`, oldest first; the cursor is the next `after`."""
    get(backend, tenant_id, job_id)
    with backend.database.session(read_only=True) as session:
        found = job_output.metrics(
            session, tenant_id, job_id, after=after, limit=limit + 1, name=name
        )
        shown = [Metric.model_validate(one) for one in found[:limit]]
    more = len(found) > limit
    return Page(data=shown, has_more=more, next_cursor=str(shown[-1].seq) if more else None)


def log_text(backend: Backend, tenant_id: str, job_id: str) -> Iterator[str]:
    """What the runner printed, a few chunks per transaction so that a slow reader holds none."""
    after = 0
    while True:
        with backend.database.session(read_only=True) as session:
            chunks = job_output.log_chunks(
                session, tenant_id, job_id, after=after, limit=_LOG_CHUNKS
            )
        yield from (chunk.text for chunk in chunks)
        if len(chunks) < _LOG_CHUNKS:
            return
        after = chunks[-1].id


def artifacts(backend: Backend, tenant_id: str, job_id: str) -> Page[Artifact]:
    """The job's artifacts; there are never more than one of a kind, so one page holds them."""
    return Page(data=get(backend, tenant_id, job_id).artifacts)


def report(backend: Backend, tenant_id: str, job_id: str, kind: str) -> ArtifactRecord:
    """The artifact that holds the job's report."""
    job = get(backend, tenant_id, job_id)
    with backend.database.session(read_only=True) as session:
        found = job_output.artifact_of_kind(session, tenant_id, job_id, kind)
    if found is not None and job.status in TERMINAL:
        return found
    if job.type not in ("compress", "score", "search"):
        raise ReportMissing(
            f"A job of type `{job.type}` makes no report.",
            hint="Its outcome is in the field `result` of the job.",
        )
    if job.status not in TERMINAL:
        raise JobUnfinished(
            f"The job is {job.status}.", hint=f"Wait for it: `GET /v1/jobs/{job_id}?wait=30`."
        )
    reason = job.error.title if job.error else f"The job is {job.status}."
    raise ReportMissing(reason, hint=(job.error.hint if job.error else "") or "See the job.")
