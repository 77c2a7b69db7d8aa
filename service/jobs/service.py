"""Jobs: let in, read, waited for, called off."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from secateur.resources import TERMINAL, Artifact, Job, JobCreate, Page
from sqlalchemy.orm import Session

from persistence import datasets, job_queue, jobs, models, quotas
from persistence.idempotency import Answer
from persistence.queue_position import queue_position, queue_positions
from persistence.records import JobRecord, ModelRecord
from service.access.quotas import claim
from service.context import Backend
from service.idempotency import Once, fingerprint
from service.jobs.admission import admit, choose_queue
from service.jobs.time_limits import time_faults
from service.jobs.written import WrittenJob
from service.problems import NotFound


@dataclass(frozen=True)
class Filters:
    """What a list of jobs is narrowed to."""

    status: Collection[str] = ()
    type: str | None = None
    model_id: str | None = None
    metadata: Mapping[str, str] | None = None
    parent_id: str | None = None


def present(record: JobRecord, queue_position: int | None) -> Job:
    """The job as the API shows it: nothing in it moves by itself, so that what was read stays true
    until the job changes.

    Args:
        record: the job.
        queue_position: jobs ahead of it, if it waits.
    """
    return Job.model_validate(
        {
            "id": record.id,
            "type": record.type,
            "status": record.status,
            "name": record.name,
            "model_id": record.model_id,
            "dataset_id": record.dataset_id,
            "initial_model_id": record.initial_model_id,
            "parent_id": record.parent_id,
            "trial": _trial(record),
            "loss_model_id": record.loss_model_id,
            "metric_model_id": record.metric_model_id,
            "recipe": record.recipe,
            "device": record.device,
            "queue": record.queue,
            "stage": record.stage,
            "progress": record.progress,
            "attempt": record.attempt,
            "queue_position": queue_position,
            "priority": record.priority,
            "deadline": record.deadline,
            "max_wait_seconds": record.max_wait_seconds,
            "max_run_seconds": record.max_run_seconds,
            "waited_seconds": record.waited_seconds,
            "ran_seconds": record.ran_seconds,
            "clock_started_at": None if record.status in TERMINAL else record.clock_started_at,
            "retry_of_id": record.retry_of_id,
            "error": record.error,
            "result": record.result,
            "metadata": record.metadata_,
            "artifacts": [Artifact.model_validate(one) for one in record.artifacts],
            "created_at": record.created_at,
            "started_at": record.started_at,
            "finished_at": record.finished_at,
        }
    )


def show(session: Session, record: JobRecord) -> Job:
    """The job as it stands now."""
    return present(record, queue_position(session, record))


def _trial(record: JobRecord) -> dict[str, Any] | None:
    if record.trial is None:
        return None
    outcome = record.trial.get("outcome") or {}
    return {
        "number": record.trial_number,
        "parameters": record.trial["parameters"],
        "state": outcome.get("state"),
        "values": outcome.get("values", {}),
    }


def create(backend: Backend, tenant_id: str, request: JobCreate, once: Once) -> Job:
    """Let a job in: its row, its first event, its poke and its key in one transaction.

    The uploads stay locked until then, so none can be deleted in between.
    """
    ledger = once.of(fingerprint(request))
    with backend.database.session() as session:
        answer = ledger.recall(session)
        if answer is not None:
            return Job.model_validate(answer.body)
        claim(session, backend.settings, tenant_id, quotas.LIVE_JOBS)
        beside = (request.initial_model_id, request.loss_model_id, request.metric_model_id)
        wanted = {request.model_id, *(given for given in beside if given is not None)}
        # in one order everywhere, so that two requests with the same models cannot deadlock
        uploads = {
            model_id: _locked_model(session, tenant_id, model_id) for model_id in sorted(wanted)
        }
        model = uploads[request.model_id]
        dataset = None
        if request.dataset_id is not None:
            dataset = datasets.get_for_update(session, tenant_id, request.dataset_id)
            if dataset is None:
                raise NotFound("dataset", request.dataset_id, listing="/v1/datasets")
        initial, *modules = (None if given is None else uploads[given] for given in beside)
        admit(
            request,
            model,
            dataset,
            initial,
            modules,
            offered=backend.settings.offered_exports,
            faults=[*time_faults(request, backend.settings, job_queue.database_time(session))],
        )
        record = job_queue.enqueue(
            session,
            tenant_id=tenant_id,
            type=request.type,
            model_id=request.model_id,
            dataset_id=request.dataset_id,
            initial_model_id=request.initial_model_id,
            loss_model_id=request.loss_model_id,
            metric_model_id=request.metric_model_id,
            recipe=request.recipe.as_written,
            device=request.device,
            queue=choose_queue(request.device, backend.settings),
            name=request.name,
            metadata=request.metadata,
            priority=request.priority,
            deadline=request.deadline,
            max_wait_seconds=request.max_wait_seconds,
            max_run_seconds=request.max_run_seconds,
        )
        job = show(session, record)
        location = {"Location": f"/v1/jobs/{job.id}"}
        ledger.remember(session, Answer(202, location, job.model_dump(mode="json")))
        return job


def _locked_model(session: Session, tenant_id: str, model_id: str) -> ModelRecord:
    model = models.get_for_update(session, tenant_id, model_id)
    if model is None:
        raise NotFound("model", model_id, listing="/v1/models")
    return model


def get(backend: Backend, tenant_id: str, job_id: str) -> Job:
    """One job."""
    with backend.database.session(read_only=True) as session:
        record = jobs.get(session, tenant_id, job_id)
        if record is None:
            raise NotFound("job", job_id, listing="/v1/jobs")
        return show(session, record)


async def read(backend: Backend, tenant_id: str, job_id: str) -> WrittenJob:
    """One job as JSON, read together with those that others ask for at the same moment."""
    found = await backend.job_reads.get((tenant_id, job_id))
    if found is None:
        raise NotFound("job", job_id, listing="/v1/jobs")
    return found


async def wait(backend: Backend, tenant_id: str, job_id: str, seconds: float) -> WrittenJob:
    """The job once it has ended, or as it stands after `seconds`."""
    job = await read(backend, tenant_id, job_id)
    if job.ended:
        return job
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with backend.changes.watch(tenant_id, job_id) as watch:
        while (left := deadline - loop.time()) > 0:
            mark = await watch.moved(left)
            if mark is not None and mark.status in TERMINAL:
                break
    return await read(backend, tenant_id, job_id)


def list_page(
    backend: Backend, tenant_id: str, filters: Filters, *, limit: int, cursor: str | None
) -> Page[Job]:
    """The tenant's jobs, newest first; the trials of a search only where it is asked for."""
    with backend.database.session(read_only=True) as session:
        found = jobs.list_page(
            session,
            tenant_id,
            limit=limit,
            cursor=cursor,
            status=filters.status,
            type=filters.type,
            model_id=filters.model_id,
            metadata=filters.metadata,
            parent_id=filters.parent_id,
        )
        places = queue_positions(session, found.records)
        data = [present(one, places.get(one.id)) for one in found.records]
    return Page(data=data, next_cursor=found.next_cursor, has_more=found.next_cursor is not None)


def cancel(backend: Backend, tenant_id: str, job_id: str) -> Job:
    """Call a job off. A job that has ended stays as it is."""
    with backend.database.session() as session:
        record = jobs.get(session, tenant_id, job_id)
        if record is None:
            raise NotFound("job", job_id, listing="/v1/jobs")
        job_queue.request_cancel(session, record)
        return show(session, record)
