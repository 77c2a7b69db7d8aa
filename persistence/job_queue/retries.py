"""A job that ended without success, once more; and how long its checkpoint is kept for that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from persistence import blobs
from persistence.artifact_store import StoredBlob
from persistence.job_queue.completion import RESUMED_FROM, ArtifactFile, attach
from persistence.job_queue.history import append_event
from persistence.job_queue.submission import enqueue
from persistence.records import LIVE, ArtifactRecord, JobRecord

_BATCH = 500


def retry(
    session: Session, old: JobRecord, *, available: Callable[[str], bool], **changes: Any
) -> JobRecord:
    """Add a job like `old`, with what it needs to go on from there.

    The blobs stay locked until the transaction ends, so a sweep cannot take them away in between.
    A trial of a search is tried again as a job of its own.

    Args:
        session: the transaction.
        old: an ended job, locked, its artifacts loaded.
        available: whether the artifact store has a blob.
        changes: arguments of `enqueue` that are not taken over.
    """
    job = enqueue(
        session,
        tenant_id=old.tenant_id,
        type=old.type,
        model_id=old.model_id,
        dataset_id=old.dataset_id,
        initial_model_id=old.initial_model_id,
        loss_model_id=old.loss_model_id,
        metric_model_id=old.metric_model_id,
        recipe=old.recipe,
        device=old.device,
        name=old.name,
        metadata=old.metadata_,
        retry_of_id=old.id,
        **changes,
    )
    taken = _take_over(session, job, old, available)
    data: dict[str, Any] = {"of": old.id, "resumes": "checkpoint" in taken}
    if "checkpoint" not in taken:
        data["reason"] = "the job left no checkpoint, or none that is still kept: it starts over"
    append_event(session, job.id, "retry", data)
    session.flush()
    session.refresh(job)
    return job


def _take_over(
    session: Session, job: JobRecord, old: JobRecord, available: Callable[[str], bool]
) -> set[str]:
    """Name the blobs of the old job's checkpoint in the new one; returns their kinds."""
    found = {}
    # in one order everywhere, so that two jobs with the same files cannot deadlock
    for artifact in sorted(old.artifacts, key=lambda one: one.sha256):
        if artifact.kind in RESUMED_FROM:
            blobs.lock(session, artifact.sha256)
            if available(artifact.sha256):
                found[artifact.kind] = artifact
    if "checkpoint" not in found:
        return set()  # a training state takes a checkpoint further and is nothing by itself
    for kind, artifact in found.items():
        blob = StoredBlob(sha256=artifact.sha256, bytes=artifact.bytes)
        file = ArtifactFile(kind, artifact.name, artifact.media_type, blob)
        attach(session, job.id, job.tenant_id, file)
    session.flush()
    return set(found)


def forget_checkpoints(session: Session, ended_before: datetime) -> int:
    """Drop the checkpoints of jobs that ended before that; returns how many files. The sweep
    deletes what no other row names."""
    old = (
        select(ArtifactRecord.id)
        .join(JobRecord, JobRecord.id == ArtifactRecord.job_id)
        .where(
            ArtifactRecord.kind.in_(RESUMED_FROM),
            JobRecord.status.not_in(LIVE),
            JobRecord.finished_at < ended_before,
        )
        .limit(_BATCH)
    )
    ids = session.scalars(old).all()
    session.execute(
        delete(ArtifactRecord)
        .where(ArtifactRecord.id.in_(ids))
        .execution_options(synchronize_session=False)
    )
    return len(ids)
