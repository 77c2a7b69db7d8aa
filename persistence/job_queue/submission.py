"""The user's side of the queue: jobs come in, and are called off."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from persistence.job_queue import shares
from persistence.job_queue.clocks import database_time, expires_at
from persistence.job_queue.completion import settle
from persistence.job_queue.history import append_event
from persistence.job_queue.outbox import poke
from persistence.records import LIVE, SEARCH, JobRecord


def enqueue(
    session: Session,
    *,
    tenant_id: str,
    type: str,
    model_id: str,
    dataset_id: str | None = None,
    initial_model_id: str | None = None,
    loss_model_id: str | None = None,
    metric_model_id: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    device: str = "auto",
    queue: str,
    name: str = "",
    metadata: Mapping[str, Any] | None = None,
    parent_id: str | None = None,
    trial_number: int | None = None,
    trial: Mapping[str, Any] | None = None,
    priority: int = 0,
    deadline: datetime | None = None,
    max_wait_seconds: int | None = None,
    max_run_seconds: int | None = None,
    retry_of_id: str | None = None,
) -> JobRecord:
    """Add a job, its first event and its poke to the caller's transaction."""
    now = database_time(session)
    job = JobRecord(
        tenant_id=tenant_id,
        type=type,
        model_id=model_id,
        dataset_id=dataset_id,
        initial_model_id=initial_model_id,
        loss_model_id=loss_model_id,
        metric_model_id=metric_model_id,
        recipe=None if recipe is None else dict(recipe),
        device=device,
        queue=queue,
        name=name,
        metadata_=dict(metadata or {}),
        parent_id=parent_id,
        trial_number=trial_number,
        trial=None if trial is None else dict(trial),
        priority=priority,
        deadline=deadline,
        max_wait_seconds=max_wait_seconds,
        max_run_seconds=max_run_seconds,
        retry_of_id=retry_of_id,
        clock_started_at=now,
        expires_at=expires_at(now, deadline, max_wait_seconds),
    )
    session.add(job)
    session.flush()
    append_event(session, job.id, "queued", {"queue": queue})
    poke(session, job.id, queue)
    if type != SEARCH:
        shares.arrive(session, tenant_id, queue)
    session.flush()
    session.refresh(job)
    return job


def request_cancel(session: Session, job: JobRecord) -> None:
    """Call a job off: at once when it waits, through its worker when it runs. A search takes its
    trials with it, and is canceled when the last of them has ended.

    Nothing changes when it has ended or is being canceled already. `job` shows the new state
    afterwards.
    """
    # the row lock makes the decision and the change one step: a worker that claims the job at the
    # same moment comes wholly before or wholly after
    status = session.execute(
        select(JobRecord.status)
        .where(JobRecord.id == job.id)
        # not against foreign keys: a trial that ends names its search while this waits for it
        .with_for_update(key_share=True)
    ).scalar_one()
    if status == "queued":
        settle(session, job.id, "canceled")
    elif status == "running":
        append_event(session, job.id, "canceling", {})
        session.execute(
            update(JobRecord)
            .where(JobRecord.id == job.id)
            .values(status="canceling", version=JobRecord.version + 1)
            .execution_options(synchronize_session=False)
        )
        if job.type == SEARCH:
            _cancel_trials(session, job.id)
    session.flush()
    session.refresh(job)


def _cancel_trials(session: Session, search_id: str) -> None:
    live = select(JobRecord).where(JobRecord.parent_id == search_id, JobRecord.status.in_(LIVE))
    for trial in session.scalars(live.order_by(JobRecord.id)).all():
        request_cancel(session, trial)
    if session.execute(live.limit(1)).first() is None:
        settle(session, search_id, "canceled")
