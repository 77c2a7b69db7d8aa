"""Uploads in parts: begun, filled, looked at, aborted. `completion` makes models of them."""

from __future__ import annotations

from datetime import timedelta

from secateur.resources import MAX_PARTS, Page, Problem, Upload, UploadCreate, UploadPart
from sqlalchemy.orm import Session

from persistence import blobs, quotas, uploads
from persistence.artifact_store import StoredBlob
from persistence.job_queue import database_time
from persistence.records import UploadRecord
from persistence.settings import Settings
from persistence.uploads import Received
from service.access.quotas import claim
from service.context import Backend
from service.problems import NotFound, ProblemError
from service.resumable_uploads.problems import PartTooLarge, UploadBusy, UploadEnded
from service.uploads.problems import UploadInterfered, UploadTooLarge
from service.uploads.removal import remove_if_unreferenced

_MIB = 2**20
_NOTHING = Received(parts=0, bytes=0)
FORGET_AFTER = timedelta(days=1)
"""How long an upload that ended is shown."""


def present(settings: Settings, record: UploadRecord, received: Received, *, busy: bool) -> Upload:
    """The upload as the API shows it."""
    refusal = record.answer if record.status == "refused" else None
    return Upload.model_validate(
        {
            "id": record.id,
            "kind": record.kind,
            "name": record.name,
            "status": "completing" if busy else record.status,
            "bytes": record.bytes,
            "sha256": record.sha256,
            "received_bytes": received.bytes,
            "received_parts": received.parts,
            "part_bytes": _part_bytes(settings, record),
            "max_part_bytes": settings.max_part_bytes,
            "max_parts": MAX_PARTS,
            "resource_id": record.resource_id,
            "error": None if refusal is None else Problem.model_validate(refusal["body"]),
            "created_at": record.created_at,
            "expires_at": record.expires_at,
        }
    )


def _part_bytes(settings: Settings, record: UploadRecord) -> int:
    """The settings' size, or the next mebibyte that brings the file into `MAX_PARTS`."""
    least = -(-(record.bytes or file_limit(settings, record.kind)) // MAX_PARTS)
    wanted = max(settings.upload_part_bytes, -(-least // _MIB) * _MIB if least > _MIB else least)
    return min(wanted, settings.max_part_bytes)


def file_limit(settings: Settings, kind: str) -> int:
    """Largest file of a kind, in bytes."""
    return settings.max_model_bytes if kind == "model" else settings.max_dataset_bytes


def begin(session: Session, settings: Settings, tenant_id: str, request: UploadCreate) -> Upload:
    """A new upload, without a part.

    Raises:
        UploadTooLarge: the announced size is beyond the kind's limit.
    """
    limit = file_limit(settings, request.kind)
    if request.bytes is not None and request.bytes > limit:
        raise UploadTooLarge(limit)
    record = UploadRecord(
        tenant_id=tenant_id,
        kind=request.kind,
        name=request.name,
        bytes=request.bytes,
        sha256=request.sha256,
        expires_at=database_time(session) + timedelta(seconds=settings.upload_seconds),
    )
    session.add(record)
    session.flush()
    return present(settings, record, _NOTHING, busy=False)


def get(backend: Backend, tenant_id: str, upload_id: str) -> Upload:
    """One upload."""
    with backend.database.session(read_only=True) as session:
        record = found(uploads.get(session, tenant_id, upload_id), upload_id)
        received = uploads.received(session, [record]).get(record.id, _NOTHING)
        busy = uploads.is_claimed(record, database_time(session))
        return present(backend.settings, record, received, busy=busy)


def list_page(
    backend: Backend, tenant_id: str, *, limit: int, cursor: str | None, **filters: str | None
) -> Page[Upload]:
    """The tenant's uploads, newest first."""
    with backend.database.session(read_only=True) as session:
        page = uploads.list_page(session, tenant_id, limit=limit, cursor=cursor, **filters)
        received = uploads.received(session, page.records)
        now = database_time(session)
        data = [
            present(
                backend.settings,
                record,
                received.get(record.id, _NOTHING),
                busy=uploads.is_claimed(record, now),
            )
            for record in page.records
        ]
    return Page(data=data, next_cursor=page.next_cursor, has_more=page.next_cursor is not None)


def parts_page(
    backend: Backend, tenant_id: str, upload_id: str, *, after: int, limit: int
) -> Page[UploadPart]:
    """What of it has arrived, in order."""
    with backend.database.session(read_only=True) as session:
        record = found(uploads.get(session, tenant_id, upload_id), upload_id)
        records = uploads.parts(session, record, after=after, limit=limit + 1)
    data = [UploadPart.model_validate(record) for record in records[:limit]]
    more = len(records) > limit
    return Page(data=data, next_cursor=str(data[-1].number) if more else None, has_more=more)


def room_for_part(backend: Backend, tenant_id: str, upload_id: str, number: int) -> PartTooLarge:
    """How large a part may be, as the problem of one that is larger; `limit` has the bytes.

    Raises:
        NotFound: there is no such upload.
        UploadEnded: it takes no parts.
        UploadBusy: it is being completed.
    """
    with backend.database.session(read_only=True) as session:
        record = found(uploads.get(session, tenant_id, upload_id), upload_id)
        _check_open(session, record)
        return _room(session, backend.settings, record, number)


def put_part(
    backend: Backend, tenant_id: str, upload_id: str, number: int, blob: StoredBlob
) -> UploadPart:
    """Enter a part whose bytes have arrived, in place of an earlier one of its number.

    Raises:
        PartTooLarge: with what came meanwhile it is too much.
        UploadEnded, UploadBusy: the upload changed meanwhile.
    """
    try:
        with backend.database.session() as session:
            record = found(uploads.get_for_update(session, tenant_id, upload_id), upload_id)
            _check_open(session, record)
            room = _room(session, backend.settings, record, number)
            if blob.bytes > room.limit:
                raise room
            claim(session, backend.settings, tenant_id, quotas.STORED_BYTES, blob.bytes)
            blobs.lock(session, blob.sha256)
            if not backend.store.exists(blob.sha256):
                raise UploadInterfered
            part, replaced = uploads.put_part(
                session, record, number, sha256=blob.sha256, size=blob.bytes
            )
            record.expires_at = database_time(session) + timedelta(
                seconds=backend.settings.upload_seconds
            )
            entered = UploadPart.model_validate(part)
    except ProblemError:
        remove_if_unreferenced(backend.database, backend.store, blob.sha256)
        raise
    if replaced is not None:
        remove_if_unreferenced(backend.database, backend.store, replaced)
    return entered


def abort(backend: Backend, tenant_id: str, upload_id: str) -> list[str]:
    """Give an upload up; returns the hashes of its parts, whose bytes may go.

    Raises:
        UploadEnded: it is a model or dataset already.
        UploadBusy: it is becoming one.
    """
    with backend.database.session() as session:
        record = found(uploads.get_for_update(session, tenant_id, upload_id), upload_id)
        if record.status in ("aborted", "refused"):
            return []
        _check_open(session, record)
        hashes = [part.sha256 for part in uploads.parts(session, record)]
        uploads.end(session, record, "aborted", forget_at=database_time(session) + FORGET_AFTER)
    return hashes


def remove_parts(backend: Backend, hashes: list[str]) -> None:
    """Delete the bytes of parts that nobody needs any longer."""
    for sha256 in dict.fromkeys(hashes):
        remove_if_unreferenced(backend.database, backend.store, sha256)


def found(record: UploadRecord | None, upload_id: str) -> UploadRecord:
    """The upload.

    Raises:
        NotFound: there is none.
    """
    if record is None:
        raise NotFound("upload", upload_id, listing="/v1/uploads")
    return record


def _check_open(session: Session, record: UploadRecord) -> None:
    if record.status != "open":
        raise UploadEnded(record.status)
    if uploads.is_claimed(record, database_time(session)):
        raise UploadBusy


def _room(session: Session, settings: Settings, record: UploadRecord, number: int) -> PartTooLarge:
    whole = record.bytes or file_limit(settings, record.kind)
    left = whole - uploads.bytes_beside(session, record, number)
    if left < settings.max_part_bytes:
        reason = "which the file was announced with" if record.bytes else "the most a file may have"
        return PartTooLarge(left, f"what is left of the {whole}, {reason}")
    return PartTooLarge(settings.max_part_bytes, "the most a part may have")
