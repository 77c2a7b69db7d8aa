"""Which rows still need a blob, and the lock that makes the answer hold.

Blobs are shared by content, so deleting a model may only remove its blob when no other row names
the same hash. Between the question and the removal an upload of the same bytes may arrive; both
sides take `lock` first, which makes one wait for the other.
"""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from persistence.records import ArtifactRecord, DatasetRecord, ModelRecord


def lock(session: Session, sha256: str) -> None:
    """Hold this blob until the transaction ends.

    SQLite has one writer at a time: there it is enough that the transaction has begun.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(bytes.fromhex(sha256[:16]), signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def is_referenced(session: Session, sha256: str) -> bool:
    """Whether any tenant's model, dataset or artifact needs the blob."""
    found = session.scalar(
        select(
            or_(
                select(ModelRecord.id)
                .where(ModelRecord.sha256 == sha256, ModelRecord.deleted_at.is_(None))
                .exists(),
                select(DatasetRecord.id)
                .where(DatasetRecord.sha256 == sha256, DatasetRecord.deleted_at.is_(None))
                .exists(),
                select(ArtifactRecord.id).where(ArtifactRecord.sha256 == sha256).exists(),
            )
        )
    )
    return bool(found)
