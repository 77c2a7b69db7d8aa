"""Lists: what `limit` and `cursor` may be, and the page they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Query
from secateur.resources import Page

from persistence.paging import Slice

DEFAULT = 50
MAXIMUM = 200

Limit = Annotated[int, Query(ge=1, le=MAXIMUM, description="Objects per page.")]


def _cursor(prefix: str) -> Any:
    # of another list it would be no error, but an empty or a whole list
    return Query(
        max_length=64,
        pattern=rf"^{prefix}_[0-9a-z]+$",
        description="`next_cursor` of the page before.",
    )


ModelCursor = Annotated[str | None, _cursor("mdl")]
DatasetCursor = Annotated[str | None, _cursor("dst")]
UploadCursor = Annotated[str | None, _cursor("upl")]
JobCursor = Annotated[str | None, _cursor("job")]
WebhookCursor = Annotated[str | None, _cursor("whk")]
DeliveryCursor = Annotated[str | None, _cursor("msg")]
ApiKeyCursor = Annotated[str | None, _cursor("key")]

R = TypeVar("R")
T = TypeVar("T")


def page_of(found: Slice[R], present: Callable[[R], T]) -> Page[T]:
    """The page as the API shows it."""
    return Page(
        data=[present(record) for record in found.records],
        next_cursor=found.next_cursor,
        has_more=found.next_cursor is not None,
    )
