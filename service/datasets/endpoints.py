"""`/v1/datasets`."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from secateur.resources import Dataset, Page

from service import examples
from service.content import content_responses, send_blob
from service.context import BackendOf, CallerOf
from service.datasets import service
from service.idempotency import OnceOf, file_fingerprint
from service.paging import DatasetCursor, Limit, page_of
from service.problems.documentation import problems
from service.uploads.documentation import FileName, upload_body
from service.uploads.receive import receive_file

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    openapi_extra=upload_body(
        "A safetensors or npz file with tensors named `train/inputs/0`, `train/targets/0`, "
        "`validation/inputs/0`, `validation/targets/0`; a zip or tar of images in folders "
        "`train/<class>/` and `validation/<class>/`, or of WebDataset samples; or a Parquet or "
        "Arrow table."
    ),
    responses={
        200: {
            **examples.body(examples.DATASET, "These bytes are this dataset already."),
            "model": Dataset,
        },
        201: examples.created("The dataset.", examples.DATASET),
        **problems(400, 401, 409, 413, 415, 422, 503),
    },
)
async def upload_dataset(
    request: Request,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
    name: FileName = None,
) -> Dataset:
    """Upload a dataset: tensors, images, WebDataset shards or a table; the content tells which.

    The last part of a tensor's name is the index of the forward argument or its name; the first
    dimension counts samples and is equal within a split. Classes of an image folder are the names
    of its folders, sorted; `classes` of the targets lists them.
    """
    received = await receive_file(request, backend.store, limit=backend.settings.max_dataset_bytes)
    name = name or (received.form_name or "")[:200]
    ledger = once.of(file_fingerprint(received.blob.sha256, name))
    return await to_thread.run_sync(
        service.register, backend, caller.tenant_id, received.blob, name, ledger
    )


@router.get("", responses={200: examples.page(examples.DATASET), **problems(401, 422)})
def list_datasets(
    caller: CallerOf, backend: BackendOf, limit: Limit = 50, cursor: DatasetCursor = None
) -> Page[Dataset]:
    """List datasets, newest first."""
    found = service.list_page(backend, caller.tenant_id, limit=limit, cursor=cursor)
    return page_of(found, Dataset.model_validate)


@router.get("/{dataset_id}", responses={200: examples.body(examples.DATASET), **problems(401, 404)})
def get_dataset(dataset_id: str, caller: CallerOf, backend: BackendOf) -> Dataset:
    """Get one dataset."""
    return service.get(backend, caller.tenant_id, dataset_id)


@router.get(
    "/{dataset_id}/content",
    response_class=Response,
    responses={
        **content_responses("application/octet-stream", "The uploaded file."),
        **problems(401, 404, 416, 503),
    },
)
def download_dataset(
    dataset_id: str, request: Request, caller: CallerOf, backend: BackendOf
) -> Response:
    """Download the uploaded file, whole or in part (`Range`)."""
    dataset = service.get(backend, caller.tenant_id, dataset_id)
    return send_blob(
        request,
        backend.store,
        dataset.sha256,
        media_type="application/octet-stream",
        filename=f"{dataset.id}.{dataset.format}",
    )


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses={204: {"description": "The dataset is gone."}, **problems(401, 404, 409)},
)
def delete_dataset(dataset_id: str, caller: CallerOf, backend: BackendOf) -> None:
    """Delete a dataset; 409 while a job needs it."""
    service.delete(backend, caller.tenant_id, dataset_id)
