"""What happened to a job: events, metrics, logs, stages, progress.

Events and metrics share one counter per job (`last_event_seq`). The UPDATE that draws the next
number also checks the fencing token, so a number is never drawn for a stale writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from persistence.job_queue.tokens import Claim, fence
from persistence.records import EventRecord, JobRecord, LogRecord, MetricRecord, StageRecord
from persistence.records import utc_now as _utc_now


def append_event(session: Session, job: str | Claim, type: str, data: Mapping[str, Any]) -> bool:
    """Add an event.

    Args:
        session: the transaction.
        job: the job's id, or a worker's claim on it; with a claim the write is fenced.
        type: such as `started`.
        data: JSON-serialisable.

    Returns:
        False, with nothing written, when the claim is stale.
    """
    return _append(session, job, type, data) is not None


def append_metric(
    session: Session, held: Claim, *, name: str, value: float, step: int, stage: str
) -> bool:
    """Add a measured value, and the event that tells of it, under one number."""
    data = {"name": name, "value": value, "step": step, "stage": stage}
    seq = _append(session, held, "metric", data)
    if seq is None:
        return False
    session.add(
        MetricRecord(job_id=held.job_id, seq=seq, name=name, value=value, step=step, stage=stage)
    )
    return True


def append_log(session: Session, held: Claim, text: str) -> bool:
    """Add a chunk of what the runner printed."""
    if not _change(session, held, {}):
        return False
    session.add(LogRecord(job_id=held.job_id, attempt=held.attempt, text=text))
    return True


def set_progress(
    session: Session, held: Claim, progress: Mapping[str, Any], *, event: bool
) -> bool:
    """Show how far the stage is; with `event` it becomes part of the history too."""
    if not _change(session, held, {"progress": dict(progress)}):
        return False
    return append_event(session, held, "progress", progress) if event else True


def start_stage(session: Session, held: Claim, index: int, name: str) -> bool:
    """A stage or one of its steps begins."""
    if not _change(session, held, {"stage": name, "progress": None}):
        return False
    session.add(StageRecord(job_id=held.job_id, attempt=held.attempt, index=index, name=name))
    return append_event(session, held, "stage_started", {"index": index, "name": name})


def finish_stage(
    session: Session, held: Claim, index: int, name: str, measurement: dict[str, Any] | None
) -> bool:
    """It ended, with what was measured."""
    data = {"index": index, "name": name, "measurement": measurement}
    if not append_event(session, held, "stage_finished", data):
        return False
    newest = (
        select(StageRecord.id)
        .where(
            StageRecord.job_id == held.job_id,
            StageRecord.attempt == held.attempt,
            StageRecord.index == index,
            StageRecord.name == name,
        )
        .order_by(StageRecord.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    session.execute(
        update(StageRecord)
        .where(StageRecord.id == newest)
        .values(status="succeeded", measurement=measurement, finished_at=_utc_now())
        .execution_options(synchronize_session=False)
    )
    return True


def close_stages(session: Session, job_id: str, status: str) -> None:
    """No stage of the job runs any longer; those that did end with `status`."""
    session.flush()
    session.execute(
        update(StageRecord)
        .where(StageRecord.job_id == job_id, StageRecord.status == "running")
        .values(status=status, finished_at=_utc_now())
        .execution_options(synchronize_session=False)
    )


def _append(session: Session, job: str | Claim, type: str, data: Mapping[str, Any]) -> int | None:
    condition = fence(job) if isinstance(job, Claim) else JobRecord.id == job
    row = session.execute(
        update(JobRecord)
        .where(condition)
        .values(last_event_seq=JobRecord.last_event_seq + 1, version=JobRecord.version + 1)
        .returning(JobRecord.id, JobRecord.last_event_seq)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    seq = int(row.last_event_seq)
    session.add(EventRecord(job_id=row.id, seq=seq, type=type, data=dict(data)))
    return seq


def _change(session: Session, held: Claim, values: Mapping[str, Any]) -> bool:
    row = session.execute(
        update(JobRecord)
        .where(fence(held))
        .values(**values, version=JobRecord.version + 1)
        .returning(JobRecord.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return row is not None
