"""`GET /v1/jobs/{id}` without a query: the request that clients send most, by the shortest way.

The router of the framework tries every route in turn and solves the dependencies of the one it
finds: more work than the rest of a poll. This route stands before them and takes what is a plain
poll, through the same middlewares and functions as `get_job`, which stays for `?wait=` and for the
description of the API. Their answers are the same (tests/service/test_poll_route.py).
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from service.access.scopes import permit
from service.context import Backend
from service.jobs import service, validator
from service.jobs.written import WrittenJob

_PREFIX = "/v1/jobs/"


class PollRoute(BaseRoute):
    """Answers with the job as it is now.

    Args:
        backend: of this process.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is a poll and nothing else."""
        path = scope["path"]
        if (
            scope["type"] == "http"
            and scope["method"] == "GET"
            and path.startswith(_PREFIX)
            and not scope["query_string"]
            and path.find("/", len(_PREFIX)) < 0
            and len(path) > len(_PREFIX)
        ):
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it.

        Raises:
            ProblemError: the caller's key may not read, or the tenant has no such job.
        """
        await permit(Request(scope))
        response = await answer_poll(
            self._backend,
            scope["state"]["caller"].tenant_id,
            scope["path"][len(_PREFIX) :],
            Headers(scope=scope).get("if-none-match"),
        )
        await response(scope, receive, send)


async def answer_poll(backend: Backend, tenant_id: str, job_id: str, known: str | None) -> Response:
    """The job as it is now, or 304 where its tag is among those that are known.

    Args:
        backend: of this process.
        tenant_id: whose job it is.
        job_id: the job.
        known: the request's `If-None-Match`.
    """
    if known is not None:
        tag = await validator.unchanged(backend, tenant_id, job_id, known)
        if tag is not None:
            return Response(status_code=304, headers={"ETag": tag})
    return written(await service.read(backend, tenant_id, job_id))


def written(job: WrittenJob) -> Response:
    """The answer with a job."""
    return Response(job.body, media_type="application/json", headers={"ETag": job.tag})
