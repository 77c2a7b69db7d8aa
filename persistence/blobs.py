"""Which rows still need a blob, and the lock that makes the answer hold.

Blobs are shared by content, so deleting a model may only remove its blob when no other row names
the same hash. Between the question and the removal an upload of the same bytes may arrive; both
sides take `lock` first, which makes one wait for the other.

Every column named `sha256` names a blob, unless its `info` has `blob: False`. So a new kind of row
is counted by being there, and cannot be forgotten. A row with a `deleted_at` in it needs no blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from persistence.records import Record


def lock(session: Session, sha256: str) -> None:
    """Hold this blob until the transaction ends.

    SQLite has one writer at a time: there it is enough that the transaction has begun.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(bytes.fromhex(sha256[:16]), signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def naming_columns() -> Iterator[Column[Any]]:
    """The columns that name blobs."""
    for table in Record.metadata.sorted_tables:
        if "sha256" in table.c and table.c.sha256.info.get("blob", True):
            yield table.c.sha256


def is_referenced(session: Session, sha256: str) -> bool:
    """Whether a row of any tenant needs the blob: a model, a dataset, an artifact, a part."""
    return bool(session.scalar(select(or_(*(_named(sha256, by) for by in naming_columns())))))


def _named(sha256: str, by: Column[Any]) -> ColumnElement[bool]:
    rows = select(by).where(by == sha256)
    if "deleted_at" in by.table.c:
        rows = rows.where(by.table.c.deleted_at.is_(None))
    return rows.exists()
