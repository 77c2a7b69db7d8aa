"""What all resources have, lists and problems."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Resource(BaseModel):
    """Base of everything the API returns."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class Page(Resource, Generic[T]):
    """One page of a list. Pass `next_cursor` as `?cursor=` to get the next."""

    data: list[T]
    next_cursor: str | None = None
    has_more: bool = False


class Problem(Resource):
    """An error, RFC 9457 problem+json, with what to do about it in `hint`."""

    type: str
    """A stable URI reference such as `/problems/recipe-invalid`."""
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    instance: str = ""
    errors: list[FieldProblem] = []


class FieldProblem(Resource):
    """One wrong field of a request."""

    field: str
    """Dotted path, such as `recipe.stages.0.allocation.amount`."""
    message: str
