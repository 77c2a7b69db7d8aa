"""NUL characters: legal in JSON and URLs, impossible in PostgreSQL's text.

They are refused at the door, on every database alike: found later they would be a server error
at best, and at worst a row that no query can read any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from secateur.resources import FieldProblem

from service.problems.problem import RequestInvalid


def refuse_nul(body: BaseModel) -> None:
    """Refuse a request body with a NUL character in any string or key.

    Raises:
        RequestInvalid: names every such field.
    """
    faults = [
        FieldProblem(field=path, message="The text has a NUL character (U+0000); take it out.")
        for path in _nul_paths(body.model_dump(), "")
    ]
    if faults:
        raise RequestInvalid(faults)


def _nul_paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str) and "\0" in value:
        yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nul_paths(item, f"{path}.{index}".lstrip("."))
    elif isinstance(value, dict):
        for key, item in value.items():
            if "\0" in str(key):
                yield path
            yield from _nul_paths(item, f"{path}.{key}".lstrip("."))
