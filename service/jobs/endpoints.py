"""`/v1/jobs`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse
from secateur.resources import (
    Artifact,
    Event,
    Job,
    JobCreate,
    JobRetry,
    JobStatus,
    JobType,
    Metric,
    Page,
)
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from service import examples
from service.content import send_blob
from service.context import BackendOf, CallerOf
from service.example_report import REPORT
from service.example_score import SCORE_CREATE, SCORE_REPORT
from service.example_search import SEARCH_CREATE, SEARCH_REPORT
from service.idempotency import OnceOf
from service.jobs import event_stream, output, retry, service
from service.jobs.negotiation import best_type
from service.jobs.poll_route import answer_poll, written
from service.jobs.problems import NotAcceptable
from service.paging import JobCursor, Limit
from service.problems.documentation import problems
from service.problems.nul import refuse_nul

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_METADATA = "metadata."
_REPORTS = {"application/json": "report_json", "text/html": "report_html"}
_EVENTS = ("application/json", "text/event-stream")
_LARGEST = 2**31 - 1  # of the numbers events and metrics are counted with
After = Annotated[int, Query(ge=0, le=_LARGEST, description="Only those numbered above this.")]
EventCursor = Annotated[
    int | None,
    Query(ge=0, le=_LARGEST, description="`next_cursor` of the page before; means `after`."),
]
EventLimit = Annotated[int, Query(ge=1, le=1000, description="Objects per page.")]


@router.post(
    "",
    status_code=202,
    responses={
        202: examples.created("The job waits for a worker.", examples.JOB_QUEUED),
        **problems(400, 401, 404, 409, 413, 415, 422),
    },
)
def create_job(
    request: Annotated[
        JobCreate,
        Body(
            openapi_examples={
                "compress": {
                    "summary": "Remove half the channels in four rounds, then fine-tune",
                    "value": examples.JOB_CREATE,
                },
                "search": {
                    "summary": "Try ratios and criteria, and keep the best of them",
                    "value": SEARCH_CREATE,
                },
                "score": {
                    "summary": "Scan how much accuracy each layer gives up at each ratio",
                    "value": SCORE_CREATE,
                },
            }
        ),
    ],
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
) -> Job:
    """Create a job: `compress` a model by a recipe, `search` for the best of many recipes, `plan`
    what a recipe would remove, or `score` how sensitive every layer is, which makes no model.
    Without a `type` the recipe decides.

    A request with an `Idempotency-Key` can be repeated when its answer got lost: it makes one
    job, however often it comes.
    """
    refuse_nul(request)
    return service.create(backend, caller.tenant_id, request, once)


@router.get("", responses={200: examples.page(examples.JOB), **problems(401, 422)})
def list_jobs(
    *,
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    limit: Limit = 50,
    cursor: JobCursor = None,
    status: Annotated[list[JobStatus], Query(description="Any of these.")] = [],  # noqa: B006 - read by the framework, never written
    type: Annotated[JobType | None, Query()] = None,
    model_id: Annotated[str | None, Query(max_length=64)] = None,
    parent_id: Annotated[
        str | None, Query(max_length=64, description="A search: lists its trials.")
    ] = None,
) -> Page[Job]:
    """List jobs, newest first. The trials of a search are jobs too, and are listed with its id as
    `parent_id` only.

    `?metadata.team=vision` keeps the jobs whose metadata has `team` set to `vision`.
    """
    metadata = {
        key.removeprefix(_METADATA): value
        for key, value in request.query_params.items()
        if key.startswith(_METADATA)
    }
    filters = service.Filters(
        status=status, type=type, model_id=model_id, metadata=metadata, parent_id=parent_id
    )
    return service.list_page(backend, caller.tenant_id, filters, limit=limit, cursor=cursor)


@router.get(
    "/{job_id}",
    response_model=Job,
    responses={200: examples.body(examples.JOB), **problems(401, 404, 422)},
)
async def get_job(
    *,
    job_id: str,
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    wait: Annotated[
        float,
        Query(
            ge=0,
            description="Seconds to wait for the job's end before answering; longer waits than "
            "`max_wait_seconds` of `/v1/limits` are cut to it.",
        ),
    ] = 0,
) -> Response:
    """Get one job, at once or when it has ended."""
    seconds = min(wait, backend.settings.max_wait_seconds)
    if seconds > 0:
        job = await service.wait(backend, caller.tenant_id, job_id, seconds)
        return written(job)
    known = request.headers.get("if-none-match")
    return await answer_poll(backend, caller.tenant_id, job_id, known)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    responses={202: examples.body(examples.JOB, "The job as it stands now."), **problems(401, 404)},
)
def cancel_job(job_id: str, caller: CallerOf, backend: BackendOf) -> Job:
    """Cancel a job.

    A waiting job is `canceled` at once, a running one is `canceling` until its worker stopped
    it; one that has ended stays as it is.
    """
    return service.cancel(backend, caller.tenant_id, job_id)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    responses={
        202: examples.created("The new job, which waits for a worker.", examples.JOB_QUEUED),
        **problems(400, 401, 404, 409, 413, 415, 422),
    },
)
def retry_job(
    job_id: str,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
    request: Annotated[JobRetry | None, Body()] = None,
) -> Job:
    """Try a job again that failed, was canceled or expired.

    Makes a new job with the same inputs, recipe, name and metadata, which goes on from the last
    checkpoint of the old one, where it left one that is still kept; its event `retry` says
    whether. A job that has not ended, one that succeeded, and a search are refused, and so is one
    whose inputs were deleted.
    """
    return retry.retry(backend, caller.tenant_id, job_id, request or JobRetry(), once)


@router.get(
    "/{job_id}/events",
    response_model=Page[Event],
    responses={
        200: {
            "description": "One page, or the stream of events until the job ends.",
            "content": {
                "application/json": {
                    "example": examples.written(
                        {"data": [examples.EVENT], "next_cursor": None, "has_more": False}
                    )
                },
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": "event: stage_started\n"
                    'data: {"seq": 3, "type": "stage_started", "data": {...}}\nid: 3\n\n',
                },
            },
        },
        204: {"description": "Stream only: the job has ended and no event is left."},
        **problems(401, 404, 406, 422),
    },
)
async def job_events(
    *,
    job_id: str,
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    after: After = 0,
    cursor: EventCursor = None,
    limit: EventLimit = 200,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=_LARGEST, description="Stream only: go on behind this event.")
    ] = None,
) -> Response:
    """Events of a job: pages of JSON, or a stream with `Accept: text/event-stream`."""
    after = after if cursor is None else cursor
    form = best_type(request.headers.get("accept", ""), _EVENTS)
    if form is None:
        raise NotAcceptable("Events come as pages or as a stream.", hint=_accept(_EVENTS))
    if form == "application/json":
        page = await run_in_threadpool(
            output.event_page, backend, caller.tenant_id, job_id, after=after, limit=limit
        )
        # pydantic's own writer: a diverged loss is NaN, which JSON has not, and becomes null
        return Response(page.model_dump_json(), media_type="application/json")
    await run_in_threadpool(service.get, backend, caller.tenant_id, job_id)
    start = after if last_event_id is None else last_event_id
    ended, left = await run_in_threadpool(
        event_stream.read_batch, backend, caller.tenant_id, job_id, start, 1
    )
    if ended and not left:
        return Response(status_code=204)  # tells an EventSource not to connect again
    return EventSourceResponse(
        event_stream.stream(backend, caller.tenant_id, job_id, start),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/{job_id}/metrics",
    responses={200: examples.page(examples.METRIC), **problems(401, 404, 422)},
)
def job_metrics(
    *,
    job_id: str,
    caller: CallerOf,
    backend: BackendOf,
    after: After = 0,
    cursor: EventCursor = None,
    limit: EventLimit = 200,
    name: Annotated[str | None, Query(max_length=200, description="Only this metric.")] = None,
) -> Page[Metric]:
    """Metrics of a job, oldest first."""
    return output.metric_page(
        backend,
        caller.tenant_id,
        job_id,
        after=after if cursor is None else cursor,
        limit=limit,
        name=name,
    )


@router.get(
    "/{job_id}/logs",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "What the runner printed, over all attempts.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems(401, 404),
    },
)
def job_logs(job_id: str, caller: CallerOf, backend: BackendOf) -> StreamingResponse:
    """Log of a job as text."""
    service.get(backend, caller.tenant_id, job_id)
    return StreamingResponse(
        output.log_text(backend, caller.tenant_id, job_id),
        media_type="text/plain; charset=utf-8",
    )


@router.get(
    "/{job_id}/artifacts",
    responses={200: examples.page(examples.ARTIFACT), **problems(401, 404)},
)
def job_artifacts(job_id: str, caller: CallerOf, backend: BackendOf) -> Page[Artifact]:
    """Files a job produced."""
    return output.artifacts(backend, caller.tenant_id, job_id)


@router.get(
    "/{job_id}/report",
    response_class=Response,
    responses={
        200: {
            "description": "The report.",
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/Report"},
                            {"$ref": "#/components/schemas/ScoreReport"},
                            {"$ref": "#/components/schemas/SearchReport"},
                        ]
                    },
                    "examples": {
                        "compress": {"value": examples.written(REPORT)},
                        "score": {"value": examples.written(SCORE_REPORT)},
                        "search": {"value": examples.written(SEARCH_REPORT)},
                    },
                },
                "text/html": {"schema": {"type": "string"}},
            },
        },
        304: {"description": "The client's copy (`If-None-Match`) is the current one."},
        **problems(401, 404, 406, 409, 422, 503),
    },
)
def job_report(
    job_id: str,
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    format: Annotated[
        Literal["json", "html"] | None, Query(description="Instead of `Accept`.")
    ] = None,
) -> Response:
    """Report of a job, as JSON or as one HTML page. Score jobs and searches have reports of
    their own kinds."""
    if format is not None:
        media_type = "application/json" if format == "json" else "text/html"
    else:
        chosen = best_type(request.headers.get("accept", ""), tuple(_REPORTS))
        if chosen is None:
            raise NotAcceptable("The report comes as JSON or HTML.", hint=_accept(_REPORTS))
        media_type = chosen
    found = output.report(backend, caller.tenant_id, job_id, _REPORTS[media_type])
    response = send_blob(request, backend.store, found.sha256, media_type=media_type)
    response.headers["Vary"] = "Accept"
    # another attempt of a job may replace its report, so a copy must be checked before use
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _accept(types: object) -> str:
    names = ", ".join(f"`{name}`" for name in types) if isinstance(types, (tuple, dict)) else ""
    return f"Accept one of {names}."
