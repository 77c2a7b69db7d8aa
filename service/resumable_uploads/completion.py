"""From parts to a model or dataset: put together in constant memory, then registered like a file
that came in one piece.

One request at a time does it, under a claim that it renews while it lives. Its last transaction
makes the object, ends the upload and keeps the answer; a process that dies before leaves the
upload open, and one that was taken for dead finds its claim gone and makes nothing.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from secateur.resources import Dataset, FieldProblem, Model, UploadComplete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from persistence import uploads
from persistence.artifact_store import ArtifactStore, StoredBlob
from persistence.database import Database
from persistence.idempotency import Answer
from persistence.job_queue import database_time
from persistence.records import UploadPartRecord, UploadRecord
from service.context import Backend
from service.datasets import service as datasets
from service.idempotency import Ledger, Once, fingerprint
from service.logs import logger
from service.models import service as models
from service.problems import ProblemError
from service.resumable_uploads.problems import Refused, UploadBusy, UploadEnded, UploadIncomplete
from service.resumable_uploads.service import FORGET_AFTER, found
from service.uploads.removal import remove_if_unreferenced

CLAIM_SECONDS = 60.0
_COPY_BYTES = 1 << 20
_SHOWN = 10
_log = logger("secateur.uploads")


@dataclass(frozen=True)
class Completed:
    """What came of an upload, and the hashes of its parts, whose bytes may go."""

    resource: Model | Dataset
    parts: list[str]


@dataclass(frozen=True)
class _Claimed:
    record: UploadRecord
    token: str
    parts: Sequence[UploadPartRecord]


def complete(
    backend: Backend, tenant_id: str, upload_id: str, request: UploadComplete, once: Once
) -> Completed:
    """Make the model or dataset, or give the answer that was given before.

    Raises:
        UploadIncomplete: the parts are not the announced file; the upload stays open.
        UploadBusy: another request is at it.
        UploadEnded: it was aborted.
        ProblemError: the gate refused the file; the upload is `refused` then.
    """
    ledger = once.of(fingerprint(request))
    answer = ledger.find()
    claimed = answer or _claim(backend, tenant_id, upload_id, request)
    if isinstance(claimed, Answer):
        if answer is None:
            ledger.send(claimed)
        return Completed(_resource(claimed), [])
    hashes = [part.sha256 for part in claimed.parts]
    ending = _Ending(backend.database, tenant_id, claimed, ledger)
    try:
        with _kept(backend.database, claimed):
            blob = _assemble(backend.store, claimed.parts)
            if claimed.record.sha256 not in (None, blob.sha256):
                remove_if_unreferenced(backend.database, backend.store, blob.sha256)
                raise UploadIncomplete(
                    f"Announced was sha-256 {claimed.record.sha256}, the parts make {blob.sha256}."
                )
            service = models if claimed.record.kind == "model" else datasets
            made = service.register(backend, tenant_id, blob, claimed.record.name, ending)
    except ProblemError as error:
        if error.status == _REFUSED:
            ending.refuse(error)
            for sha256 in dict.fromkeys(hashes):
                remove_if_unreferenced(backend.database, backend.store, sha256)
        else:
            _release(backend.database, claimed)
        raise
    except Exception:
        _release(backend.database, claimed)
        raise
    return Completed(made, hashes)


_REFUSED = 422
"""Status of a file that no repetition makes a better one."""


def _claim(
    backend: Backend, tenant_id: str, upload_id: str, request: UploadComplete
) -> _Claimed | Answer:
    with backend.database.session() as session:
        record = found(uploads.get_for_update(session, tenant_id, upload_id), upload_id)
        if record.answer is not None:
            return _earlier(record)
        if record.status != "open":
            raise UploadEnded(record.status)
        now = database_time(session)
        if uploads.is_claimed(record, now):
            raise UploadBusy
        parts = uploads.parts(session, record)
        _check(record, parts, request)
        token = secrets.token_hex(16)
        uploads.claim(record, token, now + timedelta(seconds=CLAIM_SECONDS))
    return _Claimed(record, token, parts)


def _earlier(record: UploadRecord) -> Answer:
    kept = record.answer or {}
    if record.status == "refused":
        raise Refused(kept["body"])
    return Answer(kept["status"], kept["headers"], kept["body"])


def _check(
    record: UploadRecord, parts: Sequence[UploadPartRecord], request: UploadComplete
) -> None:
    """Raises `UploadIncomplete` unless the parts can be the file."""
    here = {part.number: part for part in parts}
    last = max([*here, *(one.number for one in request.parts or ())], default=1)
    missing = [number for number in range(1, last + 1) if number not in here]
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN]))
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UploadIncomplete(f"Parts that did not arrive: {shown}{more}.")
    if request.parts is not None:
        faults = list(_differences(here, request))
        if faults:
            raise UploadIncomplete("Other parts arrived than are listed.", faults[:50])
    received = sum(part.bytes for part in parts)
    if record.bytes not in (None, received):
        raise UploadIncomplete(f"{record.bytes} bytes were announced, {received} arrived.")


def _differences(
    here: dict[int, UploadPartRecord], request: UploadComplete
) -> Iterator[FieldProblem]:
    listed: set[int] = set()
    for index, one in enumerate(request.parts or ()):
        if one.number in listed:
            yield FieldProblem(field=f"parts.{index}.number", message="It is listed twice.")
        elif one.sha256 != here[one.number].sha256:
            yield FieldProblem(
                field=f"parts.{index}.sha256",
                message=f"Part {one.number} arrived with sha-256 {here[one.number].sha256}.",
            )
        listed.add(one.number)
    for number in sorted(here.keys() - listed):
        yield FieldProblem(field="parts", message=f"Part {number} arrived and is not listed.")


def _assemble(store: ArtifactStore, parts: Sequence[UploadPartRecord]) -> StoredBlob:
    if len(parts) == 1 and store.exists(parts[0].sha256):
        return StoredBlob(parts[0].sha256, parts[0].bytes)
    with store.open_writer() as writer:
        for part in parts:
            try:
                with store.open(part.sha256) as file:
                    while chunk := file.read(_COPY_BYTES):
                        writer.write(chunk)
            except FileNotFoundError as error:
                raise UploadIncomplete(
                    f"The bytes of part {part.number} are not in the store any more; send it again."
                ) from error
        return writer.commit()


class _Ending:
    """Ends the upload in the transaction that makes its object (`service.idempotency.Ledger`)."""

    def __init__(
        self, database: Database, tenant_id: str, claimed: _Claimed, ledger: Ledger
    ) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._claimed = claimed
        self._ledger = ledger
        self._record: UploadRecord | None = None

    def find(self) -> Answer | None:
        return None  # looked for before the claim

    def recall(self, session: Session) -> Answer | None:
        answer = self._ledger.recall(session)
        if answer is None:
            self._record = self._held(session)
        return answer

    def remember(self, session: Session, answer: Answer) -> None:
        self._ledger.remember(session, answer)
        if self._record is None:
            raise RuntimeError("remember without recall")
        body = dict(answer.body)
        kept = {"status": answer.status, "headers": dict(answer.headers), "body": body}
        uploads.end(
            session,
            self._record,
            "completed",
            forget_at=database_time(session) + FORGET_AFTER,
            answer=kept,
            resource_id=str(body["id"]),
        )

    def send(self, answer: Answer) -> None:
        self._ledger.send(answer)

    def refuse(self, error: ProblemError) -> None:
        """End the upload of a file that the gate refused."""
        problem = json.loads(bytes(error.response(f"/v1/uploads/{self._claimed.record.id}").body))
        with self._database.session() as session:
            uploads.end(
                session,
                self._held(session),
                "refused",
                forget_at=database_time(session) + FORGET_AFTER,
                answer={"status": error.status, "headers": {}, "body": problem},
            )

    def _held(self, session: Session) -> UploadRecord:
        """The upload's row, locked, if the claim is still good."""
        upload_id = self._claimed.record.id
        record = found(uploads.get_for_update(session, self._tenant_id, upload_id), upload_id)
        if record.claimed_by != self._claimed.token:
            raise UploadBusy  # taken for dead; another request is at it, or was
        return record


@contextmanager
def _kept(database: Database, claimed: _Claimed) -> Iterator[None]:
    """Renew the claim for as long as the block runs."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(CLAIM_SECONDS / 4):
            try:
                with database.session() as session:
                    until = database_time(session) + timedelta(seconds=CLAIM_SECONDS)
                    if not uploads.renew(session, claimed.record.id, claimed.token, until):
                        return
            except SQLAlchemyError as error:
                _log.warning("claim not renewed", upload=claimed.record.id, error=str(error))

    thread = threading.Thread(target=renew, name="upload claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _release(database: Database, claimed: _Claimed) -> None:
    try:
        with database.session() as session:
            uploads.release(session, claimed.record.id, claimed.token)
    except SQLAlchemyError as error:  # the claim runs out by itself
        _log.warning("claim not released", upload=claimed.record.id, error=str(error))


def _resource(answer: Answer) -> Model | Dataset:
    kind = Model if str(answer.body["id"]).startswith("mdl_") else Dataset
    return kind.model_validate(answer.body)
