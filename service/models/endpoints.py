"""`/v1/models`."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from secateur.resources import Model, ModelStatus, Page

from service import examples
from service.content import content_responses, send_blob
from service.context import BackendOf, CallerOf
from service.idempotency import OnceOf, file_fingerprint
from service.models import service
from service.paging import Limit, ModelCursor, page_of
from service.problems.documentation import problems
from service.uploads.documentation import FileName, upload_body
from service.uploads.receive import receive_file

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=201,
    response_model=Model,
    openapi_extra=upload_body("A TorchScript file, as `torch.jit.save` writes it."),
    responses={
        200: {
            **examples.body(examples.MODEL, "These bytes are this model already."),
            "model": Model,
        },
        201: examples.created("The model, to be inspected next.", examples.MODEL_UPLOADED),
        **problems(400, 401, 409, 413, 415, 422, 503),
    },
)
async def upload_model(
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
    name: FileName = None,
) -> Model:
    """Upload a TorchScript model.

    The body is the file itself or a multipart form with one file. It is checked without being
    loaded; a job then inspects it, after which the model is `ready` or `rejected`.
    """
    received = await receive_file(request, backend.store, limit=backend.settings.max_model_bytes)
    name = name or (received.form_name or "")[:200]
    ledger = once.of(file_fingerprint(received.blob.sha256, name))
    return await to_thread.run_sync(
        service.register, backend, caller.tenant_id, received.blob, name, ledger
    )


@router.get("", responses={200: examples.page(examples.MODEL), **problems(401, 422)})
def list_models(
    caller: CallerOf,
    backend: BackendOf,
    limit: Limit = 50,
    cursor: ModelCursor = None,
    status: Annotated[ModelStatus | None, Query(description="Only models in this state.")] = None,
) -> Page[Model]:
    """List models, newest first."""
    found = service.list_page(backend, caller.tenant_id, limit=limit, cursor=cursor, status=status)
    return page_of(found, Model.model_validate)


@router.get("/{model_id}", responses={200: examples.body(examples.MODEL), **problems(401, 404)})
def get_model(model_id: str, caller: CallerOf, backend: BackendOf) -> Model:
    """Get one model."""
    return service.get(backend, caller.tenant_id, model_id)


@router.get(
    "/{model_id}/content",
    response_class=Response,
    responses={
        **content_responses("application/octet-stream", "The copy the server keeps."),
        **problems(401, 404, 416, 503),
    },
)
def download_model(
    model_id: str, request: Request, caller: CallerOf, backend: BackendOf
) -> Response:
    """Download the copy that is kept of the model, whole or in part (`Range`): the program and
    weights that were uploaded, in the form the server gives them."""
    model = service.get(backend, caller.tenant_id, model_id)
    return send_blob(
        request,
        backend.store,
        model.sha256,
        media_type="application/octet-stream",
        filename=f"{(model.name or model.id).removesuffix('.pt')}.pt",
    )


@router.delete(
    "/{model_id}",
    status_code=204,
    responses={204: {"description": "The model is gone."}, **problems(401, 404, 409)},
)
def delete_model(model_id: str, caller: CallerOf, backend: BackendOf) -> None:
    """Delete a model; 409 while a job needs it."""
    service.delete(backend, caller.tenant_id, model_id)
