"""The base of every error the API answers with, and those any resource may raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.resources import FieldProblem, Problem
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class ProblemError(HTTPException):
    """An error with a stable type, a title, and what to do about it.

    Subclasses are named for the situation and set `status`, `type`, `title`.

    Args:
        detail: what went wrong in this very request.
        hint: what the caller should do.
        errors: the wrong fields.
        headers: extra response headers.
    """

    status = 500
    type = "internal-error"
    title = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        hint: str = "",
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.status, detail, headers)
        self.hint = hint
        self.errors = list(errors)

    def response(self, instance: str) -> JSONResponse:
        """The problem document; `instance` names the request."""
        problem = Problem(
            type=f"/problems/{self.type}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            hint=self.hint,
            instance=instance,
            errors=self.errors,
        )
        return JSONResponse(
            problem.model_dump(),
            status_code=self.status,
            media_type=MEDIA_TYPE,
            headers=dict(self.headers or {}),
        )


class Unauthorized(ProblemError):
    """No API key, or one that opens nothing."""

    status = 401
    type = "unauthorized"
    title = "A valid API key is required"

    def __init__(self, detail: str, *, error: str | None = None) -> None:
        challenge = 'Bearer realm="secateur"' + (f', error="{error}"' if error else "")
        super().__init__(
            detail,
            hint="Send `Authorization: Bearer sk_...` with a key that is not revoked. "
            "`secateur serve` prints where it keeps the key of a local server.",
            headers={"WWW-Authenticate": challenge},
        )


class NotFound(ProblemError):
    """The tenant has no such object (another tenant's objects answer the same)."""

    status = 404
    title = "Not found"

    def __init__(self, noun: str, identifier: str, *, listing: str) -> None:
        self.type = f"{noun.lower().replace(' ', '-')}-not-found"
        super().__init__(
            f"There is no {noun} `{identifier}`.",
            hint=f"Check the id; `GET {listing}` lists what this API key can see.",
        )


class BadRequest(ProblemError):
    """The request cannot be read."""

    status = 400
    type = "bad-request"
    title = "The request cannot be read"


class MediaTypeUnsupported(ProblemError):
    """The body is in a form this path does not read."""

    status = 415
    type = "media-type-unsupported"
    title = "The body is in a form that is not read here"


class RequestInvalid(ProblemError):
    """One or more fields of the request are wrong; each is named in `errors`."""

    status = 422
    type = "request-invalid"
    title = "The request has invalid fields"

    def __init__(self, errors: Sequence[FieldProblem], *, hint: str = "") -> None:
        fields = ", ".join(f"`{error.field}`" for error in errors[:5])
        more = f" and {len(errors) - 5} more" if len(errors) > 5 else ""
        if any(error.field.startswith("recipe.") or error.field == "recipe" for error in errors):
            self.type = "recipe-invalid"
            self.title = "The recipe is invalid"
        super().__init__(
            f"Invalid: {fields}{more}.",
            hint=hint or "`errors` names each field and what would be valid.",
            errors=errors,
        )


class ServerProblem(ProblemError):
    """The server's own fault; nothing of it is shown but the request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "The server failed to answer this request.",
            hint=f"Try again; if it keeps failing, look for request {request_id} in the "
            "server's log.",
        )
