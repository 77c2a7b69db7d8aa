"""Pages of a list, newest first, by keyset: the cursor is the last id of the page before.

Ids sort by creation time, so a page stays right while rows come and go, and costs one index scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

R = TypeVar("R")


@dataclass(frozen=True)
class Slice(Generic[R]):
    """One page of records and the cursor of the next, None on the last page."""

    records: Sequence[R]
    next_cursor: str | None


def page(
    session: Session,
    query: Select[R],
    key: InstrumentedAttribute[str],
    *,
    limit: int,
    cursor: str | None,
) -> Slice[R]:
    """The next `limit` records of `query` below `cursor`, newest first."""
    if cursor is not None:
        query = query.where(key < cursor)
    records: list[Any] = list(session.scalars(query.order_by(key.desc()).limit(limit + 1)))
    if len(records) <= limit:
        return Slice(records, None)
    records.pop()
    return Slice(records, getattr(records[-1], key.key))
