"""The `ETag` of a job, from its version: a poll that finds nothing new costs one narrow query.

Every change of a job's row raises its version. A waiting job's place in the queue moves without
it, so there the tag is that of the whole body (`service.conditional`).
"""

from __future__ import annotations

import hashlib
import json

from secateur.resources import Job

from persistence import jobs
from persistence.records import JobRecord
from service.conditional import matches
from service.context import Backend

# of the form that jobs are shown in: a new version of the service may show more of the same row
_FORM = hashlib.sha256(json.dumps(Job.model_json_schema(), sort_keys=True).encode()).hexdigest()[:8]


def etag(record: JobRecord) -> str | None:
    """The tag; None while the job waits."""
    return _tag(record.id, record.version, record.status)


def unchanged(backend: Backend, tenant_id: str, job_id: str, if_none_match: str) -> str | None:
    """The tag, if it is known to be the one the client has."""
    with backend.database.session(read_only=True) as session:
        mark = jobs.mark(session, tenant_id, job_id)
    tag = None if mark is None else _tag(job_id, mark.version, mark.status)
    return tag if tag is not None and matches(if_none_match, tag) else None


def _tag(job_id: str, version: int, status: str) -> str | None:
    return None if status == "queued" else f'"{job_id}.{version}.{_FORM}"'
