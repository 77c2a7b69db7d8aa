"""An ended job once more: the same inputs and recipe, from the last checkpoint."""

from __future__ import annotations

from secateur.resources import TERMINAL, Job, JobRetry
from sqlalchemy.orm import Session

from persistence import datasets, job_queue, jobs, models
from persistence.idempotency import Answer
from persistence.job_queue.clocks import database_time
from persistence.records import SEARCH, JobRecord
from service.context import Backend
from service.idempotency import Once, fingerprint
from service.jobs.admission import choose_queue
from service.jobs.problems import InputsDeleted, NotRetryable
from service.jobs.service import show
from service.jobs.time_limits import time_faults
from service.problems import NotFound, RequestInvalid


def retry(backend: Backend, tenant_id: str, job_id: str, request: JobRetry, once: Once) -> Job:
    """Make the new job, with the checkpoint of the old one, in one transaction.

    Raises:
        NotRetryable: the job has not ended, or succeeded, or is a search.
        InputsDeleted: it has nothing to work on any longer.
        RequestInvalid: the time limits cannot be kept.
    """
    ledger = once.of(fingerprint(request))
    with backend.database.session() as session:
        answer = ledger.recall(session)
        if answer is not None:
            return Job.model_validate(answer.body)
        old = jobs.get_for_update(session, tenant_id, job_id)
        if old is None:
            raise NotFound("job", job_id, listing="/v1/jobs")
        _refuse(old)
        _lock_inputs(session, old)
        now = database_time(session)
        faults = [*time_faults(request, backend.settings, now)]
        if faults:
            raise RequestInvalid(faults)
        given = request.model_dump(exclude_none=True)
        kept = None if old.deadline is None or old.deadline <= now else old.deadline
        record = job_queue.retry(
            session,
            old,
            available=backend.store.exists,
            queue=choose_queue(old.device, backend.settings),  # type: ignore[arg-type]
            priority=given.get("priority", old.priority),
            deadline=given.get("deadline", kept),
            max_wait_seconds=given.get("max_wait_seconds", old.max_wait_seconds),
            max_run_seconds=given.get("max_run_seconds", old.max_run_seconds),
        )
        job = show(session, record)
        location = {"Location": f"/v1/jobs/{job.id}"}
        ledger.remember(session, Answer(202, location, job.model_dump(mode="json")))
        return job


def _refuse(old: JobRecord) -> None:
    if old.status not in TERMINAL:
        raise NotRetryable(
            f"The job is {old.status}.",
            hint=f"Wait for its end, or call it off: `POST /v1/jobs/{old.id}/cancel`.",
        )
    if old.status == "succeeded":
        raise NotRetryable(
            "The job succeeded; there is nothing to try again.",
            hint=f"See `/v1/jobs/{old.id}/artifacts`, or make another with `POST /v1/jobs`.",
        )
    if old.type == SEARCH:
        raise NotRetryable(
            "A search is not tried again as a whole.",
            hint="Retry one of its trials (`GET /v1/jobs?parent_id=` lists them), or send the "
            "recipe to `POST /v1/jobs` for a search from the beginning.",
        )


def _lock_inputs(session: Session, old: JobRecord) -> None:
    named = {
        "model_id": old.model_id,
        "initial_model_id": old.initial_model_id,
        "loss_model_id": old.loss_model_id,
        "metric_model_id": old.metric_model_id,
    }
    gone = []
    # in one order everywhere, so that two requests with the same models cannot deadlock
    for model_id in sorted({one for one in named.values() if one is not None}):
        if models.get_for_update(session, old.tenant_id, model_id) is None:
            gone += [f"`{field}` {model_id}" for field, one in named.items() if one == model_id]
    dataset_id = old.dataset_id
    if dataset_id and datasets.get_for_update(session, old.tenant_id, dataset_id) is None:
        gone.append(f"`dataset_id` {dataset_id}")
    if gone:
        raise InputsDeleted(
            f"What the job worked on was deleted: {', '.join(gone)}.",
            hint="Upload it again and make a new job of it: `POST /v1/jobs`.",
        )
