"""The scope that an operation needs.

Reading (GET, HEAD) needs `read`, everything else `write`. A router that is for administrators says
so once, `APIRouter(..., route_class=AdminRoute)`. The same declaration is what requests are held
against and what the API description shows, as `x-required-scope` and in `security`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from service.access import audit_trail
from service.access.problems import ScopeMissing

GUARDED = "/v1/"
"""Everything under it needs a key; nothing else does."""
FIELD = "x-required-scope"
SCHEME = "ApiKey"
_READING = frozenset({"GET", "HEAD"})


class AdminRoute(APIRoute):
    """An operation that needs the scope `admin`, whatever its method."""

    def __init__(
        self, *args: Any, openapi_extra: dict[str, Any] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, openapi_extra={**(openapi_extra or {}), FIELD: "admin"}, **more)


def by_method(method: str) -> str:
    """The scope of an operation that declares none."""
    return "read" if method.upper() in _READING else "write"


async def permit(request: Request) -> None:
    """Dependency of every operation: refuse a caller whose key lacks the scope.

    Raises:
        ScopeMissing: names the scope.
    """
    if not request.scope["path"].startswith(GUARDED):
        return
    declared = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    needed = declared.get(FIELD) or by_method(request.method)
    held = request.state.caller.scopes
    await audit_trail.begin(request, request.state.caller)  # first: what is refused is noted, too
    if needed not in held:
        raise ScopeMissing(needed, held)


def describe(schema: dict[str, Any]) -> None:
    """Write into the API description which scope each operation needs."""
    schema.setdefault("components", {})["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `Bearer sk_...`. The scopes are `read`, `write` and "
            "`admin`; none includes another.",
        }
    }
    for path, methods in schema["paths"].items():
        if path.startswith(GUARDED):
            for method, operation in methods.items():
                scope = operation.setdefault(FIELD, by_method(method))
                operation["security"] = [{SCHEME: [scope]}]
