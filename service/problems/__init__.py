"""Errors as RFC 9457 problem documents, each with a hint."""

from service.problems.problem import (
    MEDIA_TYPE,
    BadRequest,
    MediaTypeUnsupported,
    NotFound,
    ProblemError,
    RequestInvalid,
    ServerProblem,
    Unauthorized,
)

__all__ = [
    "MEDIA_TYPE",
    "BadRequest",
    "MediaTypeUnsupported",
    "NotFound",
    "ProblemError",
    "RequestInvalid",
    "ServerProblem",
    "Unauthorized",
]
