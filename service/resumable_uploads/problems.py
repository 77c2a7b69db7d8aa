"""What can be wrong with an upload in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.resources import FieldProblem, Problem

from service.problems import ProblemError


class UploadEnded(ProblemError):
    """It takes no parts any more."""

    status = 409
    type = "upload-ended"
    title = "The upload has ended"

    def __init__(self, status: str) -> None:
        super().__init__(
            f"The upload is {status}.", hint="Begin a new one with `POST /v1/uploads`."
        )


class UploadBusy(ProblemError):
    """A request puts it together at this moment."""

    status = 409
    type = "upload-busy"
    title = "The upload is being completed"

    def __init__(self) -> None:
        super().__init__(
            "Another request is putting the parts together.",
            hint="Ask again after `Retry-After` seconds; complete gives the same answer then.",
            headers={"Retry-After": "2"},
        )


class UploadIncomplete(ProblemError):
    """The parts are not the file; the upload stays open."""

    status = 409
    type = "upload-incomplete"
    title = "The parts do not make the file"

    def __init__(self, detail: str, errors: list[FieldProblem] | None = None) -> None:
        super().__init__(
            detail,
            hint="The upload is still open. `GET /v1/uploads/{id}/parts` lists what arrived; send "
            "what is missing or differs, and complete it again.",
            errors=errors or [],
        )


class PartTooLarge(ProblemError):
    """A part beyond what it may have."""

    status = 413
    type = "part-too-large"
    title = "The part is too large"

    def __init__(self, limit: int, reason: str) -> None:
        self.limit = limit
        super().__init__(
            f"The part is larger than {limit} bytes, {reason}.",
            hint="Nothing of it was kept. `GET /v1/uploads/{id}` shows the sizes; send smaller "
            "parts, or abort the upload (`DELETE`) if the file is too large.",
            headers={"Connection": "close"},
        )


class Refused(ProblemError):
    """The refusal of an earlier `complete`, given again."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        problem = Problem.model_validate(body)
        self.status, self.type = problem.status, problem.type.removeprefix("/problems/")
        self.title = problem.title
        super().__init__(problem.detail, hint=problem.hint, errors=problem.errors)
