"""Bad uploads over HTTP: each is a problem that says what to do, and leaves nothing behind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fastapi import Response
from sqlalchemy import func, select

from persistence.records import JobRecord, ModelRecord
from persistence.settings import Settings
from service.datasets import service as datasets
from service.idempotency import Once
from service.models import service as models
from service.uploads.problems import UploadInterfered
from tests.service.conftest import Api, dataset_arrays, scripted, serve
from tests.service.test_archive_gate import Saves


def nothing_is_left(api: Api) -> bool:
    with api.backend.database.session() as session:
        rows = [
            session.scalar(select(func.count()).select_from(r)) for r in (ModelRecord, JobRecord)
        ]
    return rows == [0, 0] and api.blobs() == []


def test_not_torchscript(api: Api) -> None:
    response = api.client.post("/v1/models", content=b"PK\x03\x04 but not really")
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "/problems/archive-refused"
    assert problem["hint"]
    assert nothing_is_left(api)
    response = api.client.post("/v1/models", content=b"hello")
    assert response.json()["type"] == "/problems/not-torchscript"
    assert "torch.jit.script" in response.json()["hint"]
    assert nothing_is_left(api)


def test_truncated_file(api: Api, model_file: bytes) -> None:
    response = api.client.post("/v1/models", content=model_file[:-100])
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/archive-refused"
    assert "cut off" in response.json()["hint"]
    assert nothing_is_left(api)


def test_code_that_writes_files(api: Api) -> None:
    response = api.client.post("/v1/models", content=scripted(Saves()))
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "/problems/operator-refused"
    [error] = problem["errors"]
    assert ".py:" in error["field"]
    assert "`torch.save`" in error["message"]
    assert "`torch.save`" in problem["detail"]
    assert nothing_is_left(api)


def test_empty_body(api: Api) -> None:
    response = api.client.post("/v1/models", content=b"")
    assert response.status_code == 400
    assert response.json()["type"] == "/problems/upload-empty"
    assert nothing_is_left(api)


def test_too_large(api_settings: Settings, model_file: bytes) -> None:
    limited = api_settings.model_copy(update={"max_model_bytes": 1000})
    for api in serve(limited):
        announced = api.client.post("/v1/models", content=model_file)
        chunked = api.client.post("/v1/models", content=iter([model_file[:900], model_file[900:]]))
        form = api.client.post("/v1/models", files={"file": ("a.pt", model_file)})
        for response in (announced, chunked, form):
            assert response.status_code == 413
            assert response.json()["type"] == "/problems/upload-too-large"
            assert "1000" in response.json()["detail"]
        assert nothing_is_left(api)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--b\r\nContent-Disposition: form-data; name=name\r\n\r\nx\r\n--b--\r\n", "no file"),
        (
            b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nxyz",
            "closing boundary",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=other\r\n\r\nx\r\n--b--\r\n",
            "unknown field `other`",
        ),
        (
            b"--b\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\nx\r\n"
            b"--b\r\nContent-Disposition: form-data; name=g; filename=b\r\n\r\ny\r\n--b--\r\n",
            "more than one file",
        ),
        (b"no form at all", "."),
        (
            b"--b\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\nx\r\n"
            b"--b\r\nContent-Disposition: form-data; name=name\r\n\r\na\0b\r\n--b--\r\n",
            "NUL",
        ),
    ],
)
def test_bad_forms(api: Api, body: bytes, words: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = api.client.post("/v1/models", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["type"] == "/problems/form-invalid"
    assert words in response.json()["detail"]
    assert nothing_is_left(api)


def test_a_form_without_a_boundary(api: Api) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = api.client.post("/v1/models", content=b"x", headers=headers)
    assert response.status_code == 400
    assert "boundary" in response.json()["detail"]
    assert nothing_is_left(api)


def test_a_refused_file_that_another_row_needs_stays(api: Api) -> None:
    """An npz is a zip and a fine dataset; sent as a model it is refused, and stays a dataset."""
    buffer = io.BytesIO()
    np.savez(buffer, **dataset_arrays())
    dataset = api.client.post("/v1/datasets", content=buffer.getvalue())
    assert dataset.status_code == 201, dataset.text
    assert api.client.post("/v1/models", content=buffer.getvalue()).status_code == 422
    download = api.client.get(f"/v1/datasets/{dataset.json()['id']}/content")
    assert download.content == buffer.getvalue()


def test_bytes_deleted_between_arrival_and_registration(api: Api, model_file: bytes) -> None:
    with api.backend.store.open_writer() as writer:
        writer.write(model_file)
        blob = writer.commit()
    api.backend.store.delete(blob.sha256)  # as another tenant's DELETE may
    for register in (models.register, datasets.register):
        once = Once(api.tenant_id, "POST /", None, Response(), api.backend.database)
        with pytest.raises(UploadInterfered):
            register(api.backend, api.tenant_id, blob, "", once.of("0" * 64))
    assert nothing_is_left(api)
