"""Models: registered after the gate, inspected by a job, deleted when nothing needs them."""

from __future__ import annotations

from secateur.resources import Model
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from persistence import blobs, job_queue, jobs, models, quotas
from persistence.artifact_store import StoredBlob
from persistence.idempotency import Answer
from persistence.paging import Slice
from persistence.records import ModelRecord
from persistence.settings import Settings
from service.access.quotas import claim
from service.context import Backend
from service.idempotency import Ledger
from service.models.archive_gate import check_archive
from service.problems import NotFound, ProblemError
from service.uploads.problems import UploadInterfered
from service.uploads.removal import (
    Arrival,
    remove_arrival,
    remove_if_unreferenced,
    stored_file,
)
from service.uploads.zip_check import ZipLimits


class ModelInUse(ProblemError):
    """A job that has not ended needs the model."""

    status = 409
    type = "model-in-use"
    title = "The model is in use"


def zip_limits(settings: Settings) -> ZipLimits:
    """The settings' limits of an archive."""
    return ZipLimits(
        entries=settings.max_archive_entries,
        ratio=settings.max_archive_ratio,
        unpacked_bytes=settings.max_unpacked_bytes,
    )


def register(
    backend: Backend, tenant_id: str, blob: StoredBlob, name: str, ledger: Ledger
) -> Model:
    """Make a model of a stored file: the gate first, which writes the copy that is kept, then the
    row, its `inspect` job and the answer in one transaction. The file itself is removed. The same
    file, and the same program and weights in another, are one model in one tenant."""
    arrival = Arrival.of(backend.store, blob.sha256)
    copy = None
    try:
        if (answer := ledger.find()) is not None:
            return Model.model_validate(answer.body)
        with backend.database.session(read_only=True) as session:
            known = models.find_by_upload(session, tenant_id, blob.sha256)
            if known is not None:
                copy = StoredBlob(known.sha256, known.bytes)
        if copy is None:
            copy = checked_copy(backend, blob)
        try:
            return _register(backend, tenant_id, copy, blob, name, ledger)
        except IntegrityError:
            # the same model came twice at once and the other upload was first; now it is found
            return _register(backend, tenant_id, copy, blob, name, ledger)
    finally:
        remove_arrival(backend.database, backend.store, arrival)
        if copy is not None:  # of an answer given before, or of a model that was not made
            remove_if_unreferenced(backend.database, backend.store, copy.sha256)


def checked_copy(backend: Backend, blob: StoredBlob) -> StoredBlob:
    """Let a stored file through the gate; returns the copy the gate writes, stored.

    Raises:
        UploadInterfered: another request deleted the same bytes in the meantime.
        ProblemError: the gate's, whose subclasses are in `archive_gate`.
    """
    with backend.store.open_writer() as writer:
        try:
            check_archive(stored_file(backend, blob), zip_limits(backend.settings), writer.write)
        except FileNotFoundError as error:
            raise UploadInterfered from error
        return writer.commit()


def _register(  # noqa: PLR0917 - what a model is made of
    backend: Backend,
    tenant_id: str,
    copy: StoredBlob,
    upload: StoredBlob,
    name: str,
    ledger: Ledger,
) -> Model:
    with backend.database.session() as session:
        if (answer := ledger.recall(session)) is not None:
            return Model.model_validate(answer.body)
        if models.find_by_content(session, tenant_id, copy.sha256) is None:
            for counted, more in ((quotas.MODELS, 1), (quotas.STORED_BYTES, copy.bytes)):
                claim(session, backend.settings, tenant_id, counted, more)
        blobs.lock(session, copy.sha256)
        if not backend.store.exists(copy.sha256):
            raise UploadInterfered
        record = models.find_by_content(session, tenant_id, copy.sha256)
        created = record is None
        if record is None:
            record = models.add(
                session,
                tenant_id=tenant_id,
                name=name,
                sha256=copy.sha256,
                size=copy.bytes,
                upload_sha256=upload.sha256,
            )
            _enqueue_inspection(session, record)
        elif record.status == "rejected" and (record.error or {}).get("retryable"):
            # the fault was not the file's; sending it again asks for another try
            record.status, record.error = "uploaded", None
            _enqueue_inspection(session, record)
        made = Model.model_validate(record)
        location = {"Location": f"/v1/models/{made.id}"}
        status = 201 if created else 200
        ledger.remember(session, Answer(status, location, made.model_dump(mode="json")))
        return made


def _enqueue_inspection(session: Session, record: ModelRecord) -> None:
    job_queue.enqueue(
        session, tenant_id=record.tenant_id, type="inspect", model_id=record.id, queue="cpu"
    )


def get(backend: Backend, tenant_id: str, model_id: str) -> Model:
    """One model."""
    with backend.database.session(read_only=True) as session:
        return Model.model_validate(_found(models.get(session, tenant_id, model_id), model_id))


def list_page(
    backend: Backend, tenant_id: str, *, limit: int, cursor: str | None, status: str | None
) -> Slice[ModelRecord]:
    """The tenant's models, newest first."""
    with backend.database.session(read_only=True) as session:
        return models.list_page(session, tenant_id, limit=limit, cursor=cursor, status=status)


def delete(backend: Backend, tenant_id: str, model_id: str) -> None:
    """Delete a model and, when nothing else holds the same bytes, its file.

    Past jobs, their reports and artifacts stay. A waiting inspection is called off.
    """
    with backend.database.session() as session:
        record = _found(models.get_for_update(session, tenant_id, model_id), model_id)
        for job in jobs.live_jobs_using(session, tenant_id, model_id=model_id):
            if job.type == "inspect":
                job_queue.request_cancel(session, job)
        busy = [job.id for job in jobs.live_jobs_using(session, tenant_id, model_id=model_id)]
        if busy:
            raise ModelInUse(
                f"Not yet finished: {', '.join(busy)}.",
                hint="Cancel these jobs (`POST /v1/jobs/{id}/cancel`) or wait for their end, then "
                "delete the model.",
            )
        models.delete(record)
        sha256 = record.sha256
    remove_if_unreferenced(backend.database, backend.store, sha256)


def _found(record: ModelRecord | None, model_id: str) -> ModelRecord:
    if record is None:
        raise NotFound("model", model_id, listing="/v1/models")
    return record
