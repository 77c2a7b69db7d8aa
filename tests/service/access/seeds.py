"""One object of each kind, so that every path of the API description can be filled in."""

from __future__ import annotations

import re
from datetime import timedelta

from persistence import api_keys
from persistence.records import (
    ArtifactRecord,
    DatasetRecord,
    DeliveryRecord,
    JobRecord,
    ModelRecord,
    UploadRecord,
    WebhookRecord,
    utc_now,
)
from tests.service.conftest import Api

_PARAMETER = re.compile(r"\{(\w+)\}")


def seed(api: Api, tenant_id: str, model_file: bytes) -> dict[str, str]:
    """Make the objects; returns path parameters by name."""
    with api.backend.store.open_writer() as writer:
        writer.write(model_file)
        blob = writer.commit()
    with api.backend.database.session() as session:
        owned = {"tenant_id": tenant_id, "sha256": blob.sha256, "bytes": blob.bytes}
        model = ModelRecord(name="secret model", status="ready", **owned)
        dataset = DatasetRecord(name="secret dataset", format="npz", tensors=[], splits={}, **owned)
        session.add_all([model, dataset])
        session.flush()
        job = JobRecord(
            tenant_id=tenant_id, type="compress", model_id=model.id, queue="cpu",
            status="succeeded", name="secret job",
        )  # fmt: skip
        upload = UploadRecord(
            tenant_id=tenant_id, kind="model", name="secret upload",
            expires_at=utc_now() + timedelta(days=1),
        )  # fmt: skip
        hook = WebhookRecord(
            tenant_id=tenant_id, url="https://secret.example.com", event_types=[], secret="whsec_x"
        )
        session.add_all([job, upload, hook])
        session.flush()
        artifact = ArtifactRecord(
            job_id=job.id, kind="model", name="secret artifact", media_type="x/y", **owned
        )
        delivery = DeliveryRecord(
            webhook_id=hook.id, tenant_id=tenant_id, event_type="job.succeeded", payload="{}"
        )
        key, _ = api_keys.create(session, tenant_id=tenant_id, name="secret key")
        session.add_all([artifact, delivery])
        session.flush()
        return {
            "model_id": model.id,
            "dataset_id": dataset.id,
            "job_id": job.id,
            "upload_id": upload.id,
            "webhook_id": hook.id,
            "artifact_id": artifact.id,
            "delivery_id": delivery.id,
            "key_id": key.id,
            "number": "1",
        }


def filled(path: str, seeds: dict[str, str]) -> str:
    """The path with the ids of seeds; a parameter without a seed fails the test, and needs one."""
    return _PARAMETER.sub(lambda match: seeds[match.group(1)], path)


def key_of(api: Api, tenant_id: str, scopes: list[str]) -> tuple[str, dict[str, str]]:
    """Id and header of a key with these scopes."""
    with api.backend.database.session() as session:
        record, secret = api_keys.create(session, tenant_id=tenant_id, name="", scopes=scopes)
    return record.id, {"Authorization": f"Bearer {secret}"}
