"""`/v1/uploads`."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, BackgroundTasks, Body, Path, Query, Request
from secateur.resources import (
    MAX_PARTS,
    Dataset,
    Model,
    Page,
    Upload,
    UploadComplete,
    UploadCreate,
    UploadKind,
    UploadPart,
)

from service import examples
from service.context import BackendOf, CallerOf
from service.idempotency import OnceOf
from service.paging import Limit, UploadCursor
from service.problems.documentation import problems
from service.problems.nul import refuse_nul
from service.resumable_uploads import completion, service
from service.uploads.documentation import digest_parameters
from service.uploads.receive import receive_file

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_PartNumber = Annotated[
    int, Path(ge=1, le=MAX_PARTS, description="The file is its parts 1, 2, ...")
]
_PART: dict[str, Any] = {
    "requestBody": {
        "description": "The bytes of the part.",
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": digest_parameters("the part"),
}


@router.post(
    "",
    status_code=201,
    responses={
        201: examples.created("The upload; send its parts next.", examples.UPLOAD),
        **problems(400, 401, 409, 413, 415, 422),
    },
)
def begin_upload(
    request: Annotated[
        UploadCreate,
        Body(openapi_examples={"model": {"value": examples.UPLOAD_CREATE}}),
    ],
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
) -> Upload:
    """Begin an upload in parts: for files that are large, or connections that break.

    Size and SHA-256 of the whole file, if they are given, are checked when it is complete.
    """
    refuse_nul(request)
    return once.create(
        Upload,
        request,
        lambda session: service.begin(session, backend.settings, caller.tenant_id, request),
        collection="/v1/uploads",
    )


@router.get("", responses={200: examples.page(examples.UPLOAD), **problems(401, 422)})
def list_uploads(
    *,
    caller: CallerOf,
    backend: BackendOf,
    limit: Limit = 50,
    cursor: UploadCursor = None,
    kind: Annotated[UploadKind | None, Query()] = None,
    status: Annotated[
        str | None,
        Query(pattern="^(open|completed|refused|aborted)$", description="Only in this state."),
    ] = None,
    sha256: Annotated[
        str | None,
        Query(pattern="^[0-9a-f]{64}$", description="Only of the file announced with this hash."),
    ] = None,
) -> Page[Upload]:
    """List uploads in parts, newest first."""
    return service.list_page(
        backend,
        caller.tenant_id,
        limit=limit,
        cursor=cursor,
        kind=kind,
        status=status,
        sha256=sha256,
    )


@router.get("/{upload_id}", responses={200: examples.body(examples.UPLOAD), **problems(401, 404)})
def get_upload(upload_id: str, caller: CallerOf, backend: BackendOf) -> Upload:
    """Get one upload: how much has arrived, and what became of it."""
    return service.get(backend, caller.tenant_id, upload_id)


@router.get(
    "/{upload_id}/parts",
    responses={200: examples.page(examples.UPLOAD_PART), **problems(401, 404, 422)},
)
def list_upload_parts(
    upload_id: str,
    caller: CallerOf,
    backend: BackendOf,
    limit: Annotated[int, Query(ge=1, le=1000, description="Objects per page.")] = 1000,
    cursor: Annotated[
        int, Query(ge=0, le=MAX_PARTS, description="`next_cursor` of the page before.")
    ] = 0,
) -> Page[UploadPart]:
    """List the parts that have arrived, by number."""
    return service.parts_page(backend, caller.tenant_id, upload_id, after=cursor, limit=limit)


@router.put(
    "/{upload_id}/parts/{number}",
    response_model=UploadPart,
    openapi_extra=_PART,
    responses={
        200: examples.body(examples.UPLOAD_PART, "The part, as it arrived."),
        **problems(400, 401, 404, 409, 413, 415, 422, 503),
    },
)
async def put_upload_part(
    upload_id: str, number: _PartNumber, request: Request, caller: CallerOf, backend: BackendOf
) -> UploadPart:
    """Send one part: in any order, several at once, again in place of an earlier one."""
    room = await to_thread.run_sync(
        service.room_for_part, backend, caller.tenant_id, upload_id, number
    )
    received = await receive_file(request, backend.store, limit=room.limit, too_large=room)
    return await to_thread.run_sync(
        service.put_part, backend, caller.tenant_id, upload_id, number, received.blob
    )


@router.post(
    "/{upload_id}/complete",
    status_code=201,
    response_model=Model | Dataset,
    responses={
        200: {
            **examples.body(examples.MODEL, "These bytes are this model or dataset already."),
            "model": Model | Dataset,
        },
        201: examples.created("The model or dataset.", examples.MODEL_UPLOADED),
        **problems(400, 401, 404, 409, 413, 415, 422, 503),
    },
)
def complete_upload(  # noqa: PLR0917 - the parts of a request
    upload_id: str,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
    background: BackgroundTasks,
    request: Annotated[
        UploadComplete | None, Body(openapi_examples={"all": {"value": examples.UPLOAD_COMPLETE}})
    ] = None,
) -> Model | Dataset:
    """Complete an upload: its parts become the model or dataset, as if the file had come in one
    request.

    Completing it again gives the same answer. A file that the gate refuses ends the upload, which
    is `refused` then; with parts missing, or of another hash than announced, it stays open.
    """
    done = completion.complete(
        backend, caller.tenant_id, upload_id, request or UploadComplete(), once
    )
    background.add_task(service.remove_parts, backend, done.parts)
    return done.resource


@router.delete(
    "/{upload_id}",
    status_code=204,
    responses={204: {"description": "Nothing of it is kept."}, **problems(401, 404, 409)},
)
def abort_upload(
    upload_id: str, caller: CallerOf, backend: BackendOf, background: BackgroundTasks
) -> None:
    """Abort an upload and delete its parts; 409 when it was completed."""
    background.add_task(
        service.remove_parts, backend, service.abort(backend, caller.tenant_id, upload_id)
    )
