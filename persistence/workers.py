"""The workers that live: each says so in its row, and rows that fell silent go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from persistence.job_queue import database_time
from persistence.records import WorkerRecord

ALIVE_SECONDS = 60.0
"""A worker that said nothing for so long counts as dead."""


def report(session: Session, name: str, queues: Sequence[str], sandbox: dict[str, Any]) -> None:
    """Say that a worker lives, and sweep the rows of those that do not."""
    now = database_time(session)
    session.execute(delete(WorkerRecord).where(WorkerRecord.seen_at < _oldest(session)))
    row = session.get(WorkerRecord, name)
    if row is None:
        session.add(
            WorkerRecord(id=name, queues=list(queues), sandbox=sandbox, started_at=now, seen_at=now)
        )
    else:
        row.seen_at = now


def leave(session: Session, name: str) -> None:
    """Say that a worker ends."""
    session.execute(delete(WorkerRecord).where(WorkerRecord.id == name))


def living(session: Session) -> list[WorkerRecord]:
    """Workers that were heard of lately, by name."""
    rows = select(WorkerRecord).where(WorkerRecord.seen_at >= _oldest(session))
    return list(session.scalars(rows.order_by(WorkerRecord.id)))


def _oldest(session: Session) -> Any:
    return database_time(session) - timedelta(seconds=ALIVE_SECONDS)
