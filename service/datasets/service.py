"""Datasets: registered after their headers were checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secateur.resources import Dataset, TensorInfo
from sqlalchemy.exc import IntegrityError

from persistence import blobs, datasets, jobs, quotas
from persistence.artifact_store import StoredBlob
from persistence.idempotency import Answer
from persistence.paging import Slice
from persistence.records import DatasetRecord
from service.access.quotas import claim
from service.context import Backend
from service.datasets import npz_header, safetensors_header
from service.datasets.archive_content import is_tar, tar_content, zip_content
from service.datasets.layout import check_layout
from service.datasets.npz_header import holds_arrays
from service.datasets.problems import LAYOUT, DatasetRefused
from service.datasets.table_header import table_format
from service.idempotency import Ledger
from service.models.service import zip_limits
from service.problems import NotFound, ProblemError
from service.uploads.problems import UploadInterfered
from service.uploads.removal import remove_if_unreferenced, stored_file
from service.uploads.zip_check import ZipLimits, starts_like_zip

Format = Literal["safetensors", "npz", "zip", "tar", "parquet", "arrow"]


class DatasetInUse(ProblemError):
    """A job that has not ended needs the dataset."""

    status = 409
    type = "dataset-in-use"
    title = "The dataset is in use"


@dataclass(frozen=True)
class _Content:
    format: Format
    tensors: list[TensorInfo]
    splits: dict[str, int]


def register(
    backend: Backend, tenant_id: str, blob: StoredBlob, name: str, ledger: Ledger
) -> Dataset:
    """Make a dataset of a stored file. The same bytes in one tenant are one dataset."""
    try:
        if (answer := ledger.find()) is None:
            try:
                content = _read(stored_file(backend, blob), zip_limits(backend.settings))
            except FileNotFoundError as error:  # gone between two looks at it
                raise UploadInterfered from error
            try:
                return _register(backend, tenant_id, blob, name, ledger, content)
            except IntegrityError:
                # the same file came twice at once and the other upload was first; now it is found
                return _register(backend, tenant_id, blob, name, ledger, content)
    except ProblemError:
        remove_if_unreferenced(backend.database, backend.store, blob.sha256)
        raise
    # what was made then may be deleted by now, and these bytes with it
    remove_if_unreferenced(backend.database, backend.store, blob.sha256)
    return Dataset.model_validate(answer.body)


def _read(path: Path, limits: ZipLimits) -> _Content:
    kind: Format
    table = table_format(path)
    if starts_like_zip(path):
        if not holds_arrays(path):
            found = zip_content(path, limits)
            return _Content("zip", found.tensors, found.splits)
        kind, tensors = "npz", npz_header.read_headers(path, limits)
    elif is_tar(path):
        found = tar_content(path, limits)
        return _Content("tar", found.tensors, found.splits)
    elif safetensors_header.looks_like_safetensors(path):
        kind, tensors = "safetensors", safetensors_header.read_header(path)
    elif table is not None:
        return _Content(table, [], {})
    else:
        raise DatasetRefused(
            "The file is neither of tensors (safetensors, npz) nor a table (Parquet, Arrow) nor an "
            "archive of samples (zip, or tar without compression).",
            hint=f"Write it with `safetensors.numpy.save_file` or `numpy.savez`. {LAYOUT}",
        )
    return _Content(kind, tensors, check_layout(tensors))


def _register(  # noqa: PLR0917 - what a dataset is made of
    backend: Backend,
    tenant_id: str,
    blob: StoredBlob,
    name: str,
    ledger: Ledger,
    content: _Content,
) -> Dataset:
    with backend.database.session() as session:
        if (answer := ledger.recall(session)) is not None:
            return Dataset.model_validate(answer.body)
        if datasets.find_by_content(session, tenant_id, blob.sha256) is None:
            for counted, more in ((quotas.DATASETS, 1), (quotas.STORED_BYTES, blob.bytes)):
                claim(session, backend.settings, tenant_id, counted, more)
        blobs.lock(session, blob.sha256)
        if not backend.store.exists(blob.sha256):
            raise UploadInterfered
        record = datasets.find_by_content(session, tenant_id, blob.sha256)
        created = record is None
        if record is None:
            record = datasets.add(
                session,
                tenant_id=tenant_id,
                name=name,
                sha256=blob.sha256,
                size=blob.bytes,
                format=content.format,
                tensors=[tensor.model_dump() for tensor in content.tensors],
                splits=dict(content.splits),
            )
        made = Dataset.model_validate(record)
        location = {"Location": f"/v1/datasets/{made.id}"}
        status = 201 if created else 200
        ledger.remember(session, Answer(status, location, made.model_dump(mode="json")))
        return made


def get(backend: Backend, tenant_id: str, dataset_id: str) -> Dataset:
    """One dataset."""
    with backend.database.session(read_only=True) as session:
        record = _found(datasets.get(session, tenant_id, dataset_id), dataset_id)
        return Dataset.model_validate(record)


def list_page(
    backend: Backend, tenant_id: str, *, limit: int, cursor: str | None
) -> Slice[DatasetRecord]:
    """The tenant's datasets, newest first."""
    with backend.database.session(read_only=True) as session:
        return datasets.list_page(session, tenant_id, limit=limit, cursor=cursor)


def delete(backend: Backend, tenant_id: str, dataset_id: str) -> None:
    """Delete a dataset and, when nothing else holds the same bytes, its file."""
    with backend.database.session() as session:
        record = _found(datasets.get_for_update(session, tenant_id, dataset_id), dataset_id)
        busy = [job.id for job in jobs.live_jobs_using(session, tenant_id, dataset_id=dataset_id)]
        if busy:
            raise DatasetInUse(
                f"Not yet finished: {', '.join(busy)}.",
                hint="Cancel these jobs (`POST /v1/jobs/{id}/cancel`) or wait for their end, then "
                "delete the dataset.",
            )
        datasets.delete(record)
        sha256 = record.sha256
    remove_if_unreferenced(backend.database, backend.store, sha256)


def _found(record: DatasetRecord | None, dataset_id: str) -> DatasetRecord:
    if record is None:
        raise NotFound("dataset", dataset_id, listing="/v1/datasets")
    return record
