"""The `ETag` of a job, from its version: a poll that finds nothing new costs one narrow query.

Every change of a job's row raises its version. While a job lives its clocks (`waited_seconds`,
`ran_seconds`) move without it, so the tag is weak until then: the same job, but for the time. A
waiting job's tag also has its place in the queue, which others move.
"""

from __future__ import annotations

import hashlib
import json

from secateur.resources import TERMINAL, Job

from persistence.records import JobRecord
from service.conditional import matches
from service.context import Backend

# of the form that jobs are shown in: a new version of the service may show more of the same row
_FORM = hashlib.sha256(json.dumps(Job.model_json_schema(), sort_keys=True).encode()).hexdigest()[:8]


def etag(record: JobRecord, queue_position: int | None) -> str:
    """The tag of a job as it is shown."""
    return _tag(record.id, record.version, record.status, queue_position)


async def unchanged(
    backend: Backend, tenant_id: str, job_id: str, if_none_match: str
) -> str | None:
    """The tag, if it is known to be the one the client has. Reads only the job's mark, together
    with those that others ask for."""
    mark = await backend.mark_reads.get((tenant_id, job_id))
    if mark is None or mark.status == "queued":
        return None
    tag = _tag(job_id, mark.version, mark.status, None)
    return tag if matches(if_none_match, tag) else None


def _tag(job_id: str, version: int, status: str, queue_position: int | None) -> str:
    place = "" if queue_position is None else f".{queue_position}"
    weak = "" if status in TERMINAL else "W/"
    return f'{weak}"{job_id}.{version}{place}.{_FORM}"'
