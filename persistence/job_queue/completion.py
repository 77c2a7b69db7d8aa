"""The end of a job: its artifacts, its outcome, and what that means for the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from persistence.artifact_store import StoredBlob
from persistence.job_queue import shares
from persistence.job_queue.clocks import database_time, standing
from persistence.job_queue.history import append_event, close_stages
from persistence.job_queue.outbox import poke
from persistence.job_queue.tokens import Claim, holds
from persistence.records import ArtifactRecord, JobRecord, ModelRecord
from persistence.webhooks.announcements import announce_end

Outcome = Literal["succeeded", "failed", "canceled", "expired"]
RESUMED_FROM = ("checkpoint", "training_state")
"""Kinds of artifacts that only an interrupted job needs."""
_GOES_ON = ("training-diverged", "job-timeout")
"""Errors that come again when the job does the same again, though its checkpoint is of use."""


@dataclass(frozen=True)
class ArtifactFile:
    """A stored file that becomes an artifact of a job."""

    kind: str
    name: str
    media_type: str
    blob: StoredBlob


def attach(session: Session, job_id: str, tenant_id: str, file: ArtifactFile) -> None:
    """Write the artifact's row; the caller holds the job's row."""
    _remove_artifacts(session, job_id, file.kind)
    session.add(
        ArtifactRecord(
            tenant_id=tenant_id,
            job_id=job_id,
            kind=file.kind,
            name=file.name,
            media_type=file.media_type,
            sha256=file.blob.sha256,
            bytes=file.blob.bytes,
        )
    )


def add_artifact(
    session: Session, held: Claim, *, kind: str, name: str, media_type: str, blob: StoredBlob
) -> bool:
    """Attach a stored file to the job, in place of an earlier one of the same kind.

    A checkpoint is told as an event at once; the other kinds are seen when the job ends. It goes
    further than the training state that was beside the one before.
    """
    if not holds(session, held):
        return False
    if kind == "checkpoint":
        _remove_artifacts(session, held.job_id, "training_state")
    file = ArtifactFile(kind=kind, name=name, media_type=media_type, blob=blob)
    attach(session, held.job_id, held.tenant_id, file)
    if kind in RESUMED_FROM:
        data = {"attempt": held.attempt, "sha256": blob.sha256, "bytes": blob.bytes}
        return append_event(session, held, "checkpoint", data)
    return True


def finish(
    session: Session,
    held: Claim,
    status: Outcome,
    *,
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> bool:
    """End the job. Artifacts added in the same transaction become visible with its status.

    Args:
        session: the transaction.
        held: the claim.
        status: how it ended.
        error: of a failed job, `{type, title, hint, where, retryable}`.
        result: short result; of an `inspect` job the model's information.
    """
    if not holds(session, held):
        return False
    settle(session, held.job_id, status, error=error, result=result)
    return True


def settle(
    session: Session,
    job_id: str,
    status: Outcome,
    *,
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> None:
    """Write the terminal state; the caller holds the job's row.

    Args:
        session: the transaction.
        job_id: the job, queued or running.
        status: how it ended.
        error: why, unless it succeeded or was canceled.
        result: short result.
        now: when its clock stopped; the database's time when left out.
    """
    now = database_time(session) if now is None else now
    job = standing(session, job_id)
    if status == "succeeded" or (status == "failed" and not _worth_keeping(error or {})):
        # nothing is left to resume, or going on from there would fail the same way again
        _remove_artifacts(session, job_id, *RESUMED_FROM)
    close_stages(session, job_id, status)
    append_event(session, job_id, status, {"error": dict(error)} if error else {})
    row = session.execute(
        update(JobRecord)
        .where(JobRecord.id == job_id)
        .values(
            status=status,
            **job.stopped(now),
            error=None if error is None else dict(error),
            result=None if result is None else dict(result),
            progress=None,
            lease_owner=None,
            lease_expires_at=None,
            finished_at=now,
            version=JobRecord.version + 1,
        )
        .returning(JobRecord.type, JobRecord.model_id, JobRecord.parent_id, JobRecord.queue)
        .execution_options(synchronize_session=False)
    ).one()
    shares.left(session, job, now)
    if row.type == "inspect" and status in ("succeeded", "failed"):
        _judge_model(session, row.model_id, error=error, info=result)
    if row.parent_id is not None:
        poke(session, row.parent_id, row.queue)  # the search that this was a trial of goes on
    announce_end(session, job_id)


def _remove_artifacts(session: Session, job_id: str, *kinds: str) -> None:
    session.flush()
    session.execute(
        delete(ArtifactRecord)
        .where(ArtifactRecord.job_id == job_id, ArtifactRecord.kind.in_(kinds))
        .execution_options(synchronize_session=False)
    )


def _judge_model(
    session: Session,
    model_id: str,
    *,
    error: Mapping[str, Any] | None,
    info: Mapping[str, Any] | None,
) -> None:
    session.execute(
        update(ModelRecord)
        .where(ModelRecord.id == model_id)
        .values(
            status="ready" if error is None else "rejected",
            error=None if error is None else dict(error),
            info=None if info is None else dict(info),
        )
        .execution_options(synchronize_session=False)
    )


def _worth_keeping(error: Mapping[str, Any]) -> bool:
    """Whether the checkpoint of a job that failed so is of use to anybody.

    The last one before a loss ran away was still sound, and one that took too long may go on.
    """
    return bool(error.get("retryable")) or error.get("type") in _GOES_ON
