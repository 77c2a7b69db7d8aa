"""Every error of a request becomes a problem document."""

from __future__ import annotations

import re

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from secateur.resources import FieldProblem
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from persistence.artifact_store import StoreUnavailable
from service.logs import logger
from service.problems.field_paths import field_problem
from service.problems.problem import (
    BadRequest,
    MediaTypeUnsupported,
    ProblemError,
    RequestInvalid,
)

_log = logger("secateur.problems")
_JSON = "Send a JSON object with `Content-Type: application/json`."
_NOT_AN_OBJECT = ("model_attributes_type", "model_type", "dict_type")


class RouteUnknown(ProblemError):
    """No such path."""

    status = 404
    type = "route-not-found"
    title = "There is no such path"


class StoreAway(ProblemError):
    """The artifact store does not answer; why is for the log, not for tenants."""

    status = 503
    type = "store-unavailable"
    title = "Files cannot be stored or read at the moment"

    def __init__(self) -> None:
        super().__init__(
            "The service's artifact store does not answer. Nothing was half done.",
            hint="Send the request again in a few seconds.",
            headers={"Retry-After": "5"},
        )


class MethodNotAllowed(ProblemError):
    """The path exists, the method does not."""

    status = 405
    type = "method-not-allowed"
    title = "This path does not take this method"


class DatabaseUnavailable(ProblemError):
    """The database is away: restarting, failing over, or cut off."""

    status = 503
    type = "database-unavailable"
    title = "The database does not answer"

    def __init__(self) -> None:
        super().__init__(
            "The database does not answer at the moment; nothing was changed, or all of it was.",
            hint="Send the request again, with the same `Idempotency-Key` if it had one.",
            headers={"Retry-After": "1"},
        )


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StoreUnavailable, _store_unavailable)
    app.add_exception_handler(OperationalError, _database_error)


def as_problem(error: HTTPException, request: Request) -> ProblemError:
    """The problem for an error the framework raised by itself."""
    if isinstance(error, ProblemError):
        return error
    if error.status_code == 404:
        return RouteUnknown(
            f"`{request.url.path}` is not part of this API.",
            hint="The paths are listed in /openapi.json.",
        )
    if error.status_code == 405:
        allowed = ", ".join(_methods_of(request))
        return MethodNotAllowed(
            f"`{request.url.path}` does not take {request.method}.",
            hint=f"It takes: {allowed}.",
            headers={"Allow": allowed},
        )
    problem = BadRequest(error.detail, hint=_JSON, headers=error.headers)
    problem.status = problem.status_code = error.status_code
    return problem


def _methods_of(request: Request) -> list[str]:
    """All methods of the request's path; the framework names those of one of its routes only."""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        pattern = "[^/]+".join(re.escape(part) for part in re.split(r"\{[^}]+\}", template))
        if re.fullmatch(pattern, request.url.path):
            methods |= {name.upper() for name in operations}
    if "GET" in methods or not methods:  # the pages that describe the API are not in it
        methods |= {"GET", "HEAD"}
    return sorted(methods)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(f"registered for HTTPException, got {type(error).__name__}")
    return as_problem(error, request).response(request.url.path)


async def _store_unavailable(request: Request, error: Exception) -> Response:
    _log.error("the artifact store is not available", exc_info=error)
    return StoreAway().response(request.url.path)


async def _database_error(request: Request, error: Exception) -> Response:
    # the reason may hold addresses; it belongs in the log
    _log.warning("the database does not answer", error=str(error))
    return DatabaseUnavailable().response(request.url.path)


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"registered for RequestValidationError, got {type(error).__name__}")
    return _problem_of(request, error).response(request.url.path)


def _problem_of(request: Request, error: RequestValidationError) -> ProblemError:
    problems: list[FieldProblem] = []
    for entry in error.errors():
        if entry["type"] == "json_invalid":
            reason = entry.get("ctx", {}).get("error", "")
            return BadRequest(
                f"The body is not JSON: {reason} (at character {entry['loc'][-1]}).", hint=_JSON
            )
        if entry["type"] in _NOT_AN_OBJECT and tuple(entry["loc"]) == ("body",):
            sent = request.headers.get("content-type", "").partition(";")[0]
            if not sent.endswith("json"):  # `curl --data` alone sends a form
                return MediaTypeUnsupported(
                    f"The body was sent as `{sent}`." if sent else "The body has no content type.",
                    hint=_JSON,
                )
        problems.append(field_problem(entry, error.body, _body_model(request)))
    return RequestInvalid(problems)


def _body_model(request: Request) -> type[BaseModel] | None:
    field = getattr(request.scope.get("route"), "body_field", None)
    annotation = getattr(getattr(field, "field_info", None), "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
