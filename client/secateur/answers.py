"""The server's answers as the SDK's types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from secateur.errors import UnexpectedAnswer
from secateur.resources import Page
from secateur.transport import Transport

R = TypeVar("R", bound=BaseModel)
_UPGRADE = "install the SDK version that belongs to the server"


def parse(kind: type[R], content: bytes) -> R:
    """The resource in a JSON body.

    Raises:
        UnexpectedAnswer: it is another one.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"the server's answer does not fit this version of the SDK: {error}", hint=_UPGRADE
        ) from error


def pages(
    transport: Transport,
    path: str,
    kind: type[R],
    filters: Mapping[str, Any],
    cursor: str = "cursor",
) -> Iterator[R]:
    """Everything in a list, page by page.

    Args:
        transport: to the server.
        path: of the list.
        kind: of its members.
        filters: query parameters; those that are None are left out.
        cursor: the parameter that takes `next_cursor`.

    Raises:
        UnexpectedAnswer: the list says there is more but not where to go on.
    """
    params = {name: value for name, value in filters.items() if value is not None}
    while True:
        response = transport.request(
            "GET", path, params=params, headers={"Accept": "application/json"}
        )
        page = parse(Page[kind], response.content)  # type: ignore[valid-type]
        yield from page.data
        if not page.has_more:
            return
        if page.next_cursor is None or page.next_cursor == params.get(cursor):
            raise UnexpectedAnswer(
                f"{path} says there is more but not where to go on", hint=_UPGRADE
            )
        params[cursor] = page.next_cursor
