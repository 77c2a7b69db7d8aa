"""Answers kept by the key of their request, so that a request sent twice is carried out once.

The row is inserted first and filled in last, in the transaction that makes the object. So it is
also the lock: a second request with the key waits at its own insert until the first transaction
ends, then finds the answer, or nothing when that one failed. A crash takes the row with the object,
and no lease is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from persistence.records import IdempotencyRecord


@dataclass(frozen=True)
class KeyedRequest:
    """A request that carries a key.

    Attributes:
        tenant_id: whose key it is.
        key: as the caller chose it.
        operation: method and path.
        sha256: fingerprint of what was sent.
    """

    tenant_id: str
    key: str
    operation: str
    sha256: str


@dataclass(frozen=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class KeyReused(Exception):
    """The key belongs to another request; `operation` says to which."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation


def recall(session: Session, request: KeyedRequest) -> Answer | None:
    """The first answer; None when this request is the first. The caller then does the work and
    calls `remember`, both in this transaction. Call it before any other lock is taken.

    Raises:
        KeyReused: the key came with another request.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    done = session.execute(
        insert(IdempotencyRecord)
        .values(
            tenant_id=request.tenant_id,
            key=request.key,
            operation=request.operation,
            request_sha256=request.sha256,
        )
        .on_conflict_do_nothing()
    )
    if cast("CursorResult[Any]", done).rowcount == 1:
        return None
    return find(session, request)


def find(session: Session, request: KeyedRequest) -> Answer | None:
    """The first answer, if there is one already; takes no lock.

    Raises:
        KeyReused: the key came with another request.
    """
    row = session.execute(
        select(IdempotencyRecord).where(
            IdempotencyRecord.tenant_id == request.tenant_id, IdempotencyRecord.key == request.key
        )
    ).scalar_one_or_none()
    if row is None or row.status is None:
        return None
    if (row.operation, row.request_sha256) != (request.operation, request.sha256):
        raise KeyReused(row.operation)
    return Answer(row.status, row.headers or {}, row.body or {})


def operation_of(session: Session, tenant_id: str, key: str) -> str | None:
    """Method and path of the request that came with the key."""
    return session.scalar(
        select(IdempotencyRecord.operation).where(
            IdempotencyRecord.tenant_id == tenant_id, IdempotencyRecord.key == key
        )
    )


def remember(session: Session, request: KeyedRequest, answer: Answer) -> None:
    """Keep the answer, in the transaction of `recall`."""
    session.execute(
        update(IdempotencyRecord)
        .where(
            IdempotencyRecord.tenant_id == request.tenant_id, IdempotencyRecord.key == request.key
        )
        .values(status=answer.status, headers=dict(answer.headers), body=dict(answer.body))
        .execution_options(synchronize_session=False)
    )


def forget(session: Session, before: datetime) -> int:
    """Drop keys made before then; returns how many."""
    done = session.execute(
        delete(IdempotencyRecord)
        .where(IdempotencyRecord.created_at < before)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", done).rowcount
