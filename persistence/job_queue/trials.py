"""Searches and their trials.

A search is a job that no worker runs: its trials are jobs of their own, and between their ends it
only waits. It has no claim, no lease and no token. Whoever takes a step of it locks its row and
writes everything the step means in one transaction, so a step happens wholly or not at all; of two
at the same time the second sees what the first has done.

```
          begin                          end
 queued ─────────▶ running ────────────────────────────▶ succeeded | failed
                      │ request_cancel                    end
                      └───────────────▶ canceling ────────────▶ canceled
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased, selectinload

from persistence.job_queue.clocks import database_time, standing
from persistence.job_queue.completion import ArtifactFile, Outcome, attach, settle
from persistence.job_queue.history import append_event
from persistence.job_queue.outbox import take_pokes
from persistence.job_queue.submission import enqueue
from persistence.records import LIVE, SEARCH, EventRecord, JobRecord

_SEEN = "trial_finished"


def live_search(session: Session, job_id: str, *, lock: bool = False) -> JobRecord | None:
    """The search, if the job is one and has not ended.

    Args:
        session: the transaction.
        job_id: any job.
        lock: keep others from taking a step until the transaction ends.
    """
    query = select(JobRecord).where(
        JobRecord.id == job_id, JobRecord.type == SEARCH, JobRecord.status.in_(LIVE)
    )
    if lock:
        # not against foreign keys: a trial that ends at this moment names its search
        query = query.with_for_update(key_share=True)
    return session.scalar(query)


def trials(session: Session, search_id: str) -> Sequence[JobRecord]:
    """Its trials by number, their artifacts loaded."""
    return session.scalars(
        select(JobRecord)
        .where(JobRecord.parent_id == search_id)
        .order_by(JobRecord.trial_number)
        .options(selectinload(JobRecord.artifacts))
    ).all()


def begin(session: Session, search: JobRecord) -> None:
    """The first step: the search runs."""
    take_pokes(session, search.id)
    if search.status != "queued":
        return
    now = database_time(session)
    clock = standing(session, search.id).stopped(now)
    _change(session, search.id, status="running", started_at=now, **clock)
    append_event(session, search.id, "started", {"attempt": 0})


def start_trial(
    session: Session,
    search: JobRecord,
    number: int,
    *,
    recipe: Mapping[str, Any],
    parameters: Mapping[str, Any],
    sampler: Mapping[str, Any],
) -> JobRecord:
    """Add a trial, poke included."""
    trial = enqueue(
        session,
        tenant_id=search.tenant_id,
        type="compress",
        model_id=search.model_id,
        dataset_id=search.dataset_id,
        initial_model_id=search.initial_model_id,
        loss_model_id=search.loss_model_id,
        metric_model_id=search.metric_model_id,
        recipe=recipe,
        device=search.device,
        queue=search.queue,
        name=f"{search.name or search.id} trial {number}"[-200:],
        metadata=search.metadata_,
        parent_id=search.id,
        trial_number=number,
        trial={"parameters": dict(parameters), "sampler": dict(sampler)},
        priority=search.priority,
        deadline=search.deadline,
        max_wait_seconds=search.max_wait_seconds,
        max_run_seconds=search.max_run_seconds,
    )
    data = {"number": number, "job_id": trial.id, "parameters": dict(parameters)}
    append_event(session, search.id, "trial_started", data)
    return trial


def see_end(
    session: Session, search: JobRecord, trial: JobRecord, outcome: Mapping[str, Any]
) -> None:
    """Note what became of a trial that has ended."""
    _change(session, trial.id, trial={**(trial.trial or {}), "outcome": dict(outcome)})
    data = {"number": trial.trial_number, "job_id": trial.id, **outcome}
    append_event(session, search.id, _SEEN, data)


def show_progress(session: Session, search: JobRecord, current: int, total: int) -> None:
    """So many trials have ended."""
    progress = {"current": current, "total": total, "unit": "trials"}
    if search.progress != progress:
        _change(session, search.id, progress=progress)
        append_event(session, search.id, "progress", progress)


def end(
    session: Session,
    search: JobRecord,
    status: Outcome,
    *,
    files: Sequence[ArtifactFile] = (),
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> None:
    """End the search, with what it leaves behind."""
    for file in files:
        attach(session, search.id, search.tenant_id, file)
    settle(session, search.id, status, error=error, result=result)


def is_stalled() -> ColumnElement[bool]:
    """Of a job's row: a search that somebody must look after, whatever its pokes did.

    It has trials whose end it has not seen, or none under way.
    """
    trial = aliased(JobRecord)
    of_this = select(func.count()).select_from(trial).where(trial.parent_id == JobRecord.id)
    under_way = of_this.where(trial.status.in_(LIVE)).correlate(JobRecord).scalar_subquery()
    ended = of_this.where(trial.status.not_in(LIVE)).correlate(JobRecord).scalar_subquery()
    seen = (
        select(func.count())
        .select_from(EventRecord)
        .where(EventRecord.job_id == JobRecord.id, EventRecord.type == _SEEN)
        .correlate(JobRecord)
        .scalar_subquery()
    )
    unseen = and_(JobRecord.status == "running", ended > seen)
    return and_(
        JobRecord.type == SEARCH,
        JobRecord.status.in_(("running", "canceling")),
        or_(under_way == 0, unseen),
    )


def _change(session: Session, job_id: str, **values: Any) -> None:
    session.execute(
        update(JobRecord)
        .where(JobRecord.id == job_id)
        .values(**values, version=JobRecord.version + 1)
        .execution_options(synchronize_session=False)
    )
