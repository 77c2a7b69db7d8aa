"""What webhooks are to be told, written in the transaction that makes it true.

So nothing is told that did not happen, and nothing that happened is forgotten: a crash before the
commit undoes both, one after it leaves a pending delivery. The payload says which object moved and
where it is now; the object itself is a GET away ("thin" payloads of Standard Webhooks).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from persistence.records import DeliveryRecord, JobRecord, ModelRecord, WebhookRecord, utc_now

JUDGED = {"succeeded": "model.ready", "failed": "model.rejected"}
"""What the end of an inspection means for its model."""
TEST = "webhook.test"


def announce_end(session: Session, job_id: str) -> None:
    """Tell of a job that has just ended; the caller holds its row and has written its end.

    The end of an inspection is told as its model's. Trials are told by the end of their search.
    """
    session.flush()
    job = session.scalar(
        select(JobRecord)
        .where(JobRecord.id == job_id)
        .execution_options(populate_existing=True)  # the end was written past the records
    )
    if job is None or job.parent_id is not None:
        return
    if job.type != "inspect":
        announce(session, job.tenant_id, f"job.{job.status}", _job(job))
    elif job.status in JUDGED:
        model = session.scalar(
            select(ModelRecord)
            .where(ModelRecord.id == job.model_id)
            .execution_options(populate_existing=True)
        )
        if model is not None:
            announce(session, job.tenant_id, JUDGED[job.status], _model(model))


def announce(session: Session, tenant_id: str, event_type: str, data: Mapping[str, Any]) -> None:
    """Add a pending delivery for every webhook of the tenant that wants this type."""
    webhooks = session.scalars(
        select(WebhookRecord).where(
            WebhookRecord.tenant_id == tenant_id,
            WebhookRecord.enabled,
            WebhookRecord.deleted_at.is_(None),
        )
    ).all()
    for webhook in webhooks:
        if not webhook.event_types or event_type in webhook.event_types:
            add_delivery(session, webhook, event_type, data)


def add_delivery(
    session: Session, webhook: WebhookRecord, event_type: str, data: Mapping[str, Any]
) -> DeliveryRecord:
    """One pending delivery, due at once."""
    now = utc_now()
    message = {"type": event_type, "timestamp": _time(now), "data": dict(data)}
    record = DeliveryRecord(
        webhook_id=webhook.id,
        tenant_id=webhook.tenant_id,
        event_type=event_type,
        payload=json.dumps(message, ensure_ascii=False, separators=(",", ":")),
        next_attempt_at=now,
    )
    session.add(record)
    session.flush()
    return record


def _job(job: JobRecord) -> dict[str, Any]:
    return {
        "id": job.id,
        "type": job.type,
        "status": job.status,
        "name": job.name,
        "model_id": job.model_id,
        "dataset_id": job.dataset_id,
        "metadata": job.metadata_,
        "error": job.error,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
    }


def _model(model: ModelRecord) -> dict[str, Any]:
    return {
        "id": model.id,
        "status": model.status,
        "name": model.name,
        "sha256": model.sha256,
        "error": model.error,
        "created_at": _time(model.created_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
