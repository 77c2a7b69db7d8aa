"""The clocks of a job: how long it has waited and run, and until when it may.

A job is on one clock at a time: that of waiting while it is queued, that of running from a claim
to the end of the attempt. Both add up over all waits and all attempts. The database's own time is
the only one that counts, so that machines whose clocks differ agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from persistence.records import JobRecord, utc_now


def database_time(session: Session) -> datetime:
    """The time that leases, waits and deadlines are counted in: the database's own, where it is
    shared by machines.

    Workers on several machines never compare their own clocks, so skew cannot expire a lease.
    SQLite serves one machine; its time is this process's.
    """
    if session.get_bind().dialect.name == "postgresql":
        moment = session.execute(select(func.clock_timestamp())).scalar_one()
        if not isinstance(moment, datetime):
            raise TypeError(f"the database's clock answered {moment!r}")
        return moment
    return utc_now()


@dataclass(frozen=True)
class Standing:
    """Where a job stands: all that a transition has to know of it."""

    id: str
    tenant_id: str
    type: str
    queue: str
    status: str
    attempt: int
    clock_started_at: datetime
    waited_seconds: float
    ran_seconds: float
    charged_seconds: float
    deadline: datetime | None
    max_wait_seconds: int | None
    max_run_seconds: int | None

    @classmethod
    def query(cls) -> Select[Any]:
        """Selects what a standing is made of."""
        return select(*(getattr(JobRecord, name) for name in cls.__dataclass_fields__))

    @classmethod
    def of(cls, row: Row[Any]) -> Standing:
        """From a row of that query."""
        return cls(**row._mapping)

    @property
    def waits(self) -> bool:
        """Whether it is on the clock of waiting."""
        return self.status == "queued"

    def on_clock(self, now: datetime) -> float:
        """Seconds of the present wait or attempt."""
        return max(0.0, (now - self.clock_started_at).total_seconds())

    def stopped(self, now: datetime) -> dict[str, Any]:
        """Columns of the row once the present wait or attempt ends."""
        name = "waited_seconds" if self.waits else "ran_seconds"
        total = (self.waited_seconds if self.waits else self.ran_seconds) + self.on_clock(now)
        return {name: total, "clock_started_at": now, "charged_seconds": 0.0}

    def waits_until(self, since: datetime) -> datetime | None:
        """When it expires if it waits from `since` on."""
        limit = self.max_wait_seconds
        return expires_at(
            since, self.deadline, None if limit is None else limit - self.waited_seconds
        )


def standing(session: Session, job_id: str) -> Standing:
    """Where the job stands; the caller holds its row."""
    return Standing.of(session.execute(Standing.query().where(JobRecord.id == job_id)).one())


def expires_at(
    since: datetime, deadline: datetime | None, wait_seconds: float | None
) -> datetime | None:
    """When a job that waits from `since` on expires: at its deadline, or when it may wait no
    longer."""
    ends = [] if deadline is None else [deadline]
    if wait_seconds is not None:
        ends.append(since + timedelta(seconds=wait_seconds))
    return min(ends, default=None)


def expiry(job: Standing, now: datetime) -> Mapping[str, Any] | None:
    """The error of a job that has outlived its deadline or its wait; None while it has not."""
    if job.deadline is not None and now >= job.deadline:
        return deadline_passed(job.deadline)
    limit = job.max_wait_seconds
    until = job.waits_until(job.clock_started_at)
    if limit is not None and job.waits and until is not None and now >= until:
        return {
            "type": "wait-limit-reached",
            "title": f"The job waited for a worker as long as it may: {limit} seconds.",
            "hint": "Retry it with a larger `max_wait_seconds`, or when fewer jobs wait.",
            "where": "max_wait_seconds",
            "retryable": True,
        }
    return None


def deadline_passed(deadline: datetime) -> dict[str, Any]:
    """The error of a job that had not ended at its deadline."""
    return {
        "type": "deadline-passed",
        "title": f"The job had not ended at its deadline, {deadline:%Y-%m-%dT%H:%M:%S}Z.",
        "hint": "Retry it with a later `deadline`; it goes on from its last checkpoint.",
        "where": "deadline",
        "retryable": True,
    }


def ran_too_long(limit: float) -> dict[str, Any]:
    """The error of a job that ran as long as it may."""
    return {
        "type": "job-timeout",
        "title": f"The job ran longer than the {limit:g} seconds it may, all attempts together.",
        "hint": "Retry it: it goes on from its last checkpoint, with as much time again. Or train "
        "for fewer epochs or on fewer samples, or ask for more `max_run_seconds`; "
        "SECATEUR_MAX_JOB_SECONDS is the most that the server allows.",
        "where": "max_run_seconds",
        "retryable": False,
    }
