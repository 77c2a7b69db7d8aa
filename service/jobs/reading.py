"""Jobs as their readers get them: read together, written out once for all who ask."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.resources import TERMINAL

from persistence import jobs
from persistence.database import Database
from persistence.jobs import JobMark
from persistence.queue_position import queue_positions
from service.jobs import validator
from service.jobs.service import present
from service.jobs.written import JobKey, WrittenJob


def read_jobs(database: Database, wanted: Sequence[JobKey]) -> dict[JobKey, WrittenJob]:
    """Several jobs of several tenants in one transaction."""
    with database.session(read_only=True) as session:
        records = jobs.get_many(session, wanted)
        places = queue_positions(session, records)
        found: dict[JobKey, WrittenJob] = {}
        for record in records:
            job = present(record, places.get(record.id))
            body = job.model_dump_json(by_alias=True).encode()
            found[record.tenant_id, record.id] = WrittenJob(
                body, job.status in TERMINAL, validator.etag(record, job.queue_position)
            )
        return found


def read_marks(database: Database, wanted: Sequence[JobKey]) -> dict[JobKey, JobMark]:
    """Versions of several jobs of several tenants, in one narrow query."""
    with database.session(read_only=True) as session:
        return jobs.marks_of(session, wanted)
