"""`/v1/methods`."""

from __future__ import annotations

from fastapi import APIRouter
from secateur.methods import METHODS
from secateur.resources import Method, Page

from service import examples
from service.context import CallerOf
from service.problems.documentation import problems

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("", responses={200: examples.page(examples.METHOD), **problems(401)})
def list_methods(_caller: CallerOf) -> Page[Method]:
    """List every name a recipe may use, with its formula, source and schema."""
    return Page(data=list(METHODS))
