"""The API on a bucket: uploads and downloads, redirects, and a store that is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from persistence.artifact_store.s3 import S3ArtifactStore
from persistence.settings import Settings
from tests.s3_fault_proxy import Fault, S3FaultProxy
from tests.s3_server import SECRET_KEY, S3Server
from tests.service.conftest import Api, serve

REDIRECT = {"Prefer": "redirect"}


@pytest.fixture
def bucket_settings(
    api_settings: Settings, s3_service: S3Server, s3_proxy: S3FaultProxy
) -> Iterator[Settings]:
    with s3_service.credentials():
        fields = s3_service.settings(s3_service.make_bucket(), url=s3_proxy.url)
        endpoint = {"artifact_redirect_endpoint": s3_service.url, "artifact_redirects": True}
        yield api_settings.model_copy(update={**fields, **endpoint})


@pytest.fixture
def on_bucket(bucket_settings: Settings) -> Iterator[Api]:
    yield from serve(bucket_settings)


def uploaded(api: Api, model_file: bytes) -> dict[str, Any]:
    response = api.client.post("/v1/models", content=model_file)
    assert response.status_code == 201, response.text
    model: dict[str, Any] = response.json()
    return model


def test_a_model_goes_through_a_bucket(on_bucket: Api, model_file: bytes) -> None:
    assert on_bucket.anonymous.get("/readyz").status_code == 200
    model = uploaded(on_bucket, model_file)
    path = f"/v1/models/{model['id']}/content"
    whole = on_bucket.client.get(path)
    assert len(whole.content) == model["bytes"]
    part = on_bucket.client.get(path, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    assert list(on_bucket.backend.store.blobs()) == [model["sha256"]]


def test_who_asks_is_sent_to_the_bucket(on_bucket: Api, model_file: bytes) -> None:
    model = uploaded(on_bucket, model_file)
    path = f"/v1/models/{model['id']}/content"
    response = on_bucket.client.get(path, headers=REDIRECT)
    assert response.status_code == 307
    assert response.headers["preference-applied"] == "redirect"
    assert response.headers["cache-control"] == "no-store"
    assert SECRET_KEY not in response.headers["location"]
    there = httpx.get(response.headers["location"])
    assert there.content == on_bucket.client.get(path).content
    assert there.headers["content-disposition"].startswith("attachment")
    assert on_bucket.client.head(path, headers=REDIRECT).status_code == 200
    assert on_bucket.stranger.get(path, headers=REDIRECT).status_code == 404


def test_nobody_is_sent_anywhere_unless_the_operator_allows_it(
    bucket_settings: Settings, model_file: bytes
) -> None:
    for api in serve(bucket_settings.model_copy(update={"artifact_redirects": False})):
        path = f"/v1/models/{uploaded(api, model_file)['id']}/content"
        assert api.client.get(path, headers=REDIRECT).status_code == 200


def test_a_store_that_is_away_is_503_and_leaves_nothing(
    on_bucket: Api, s3_proxy: S3FaultProxy, s3_service: S3Server, model_file: bytes
) -> None:
    model = uploaded(on_bucket, model_file)
    store = on_bucket.backend.store
    assert isinstance(store, S3ArtifactStore)
    s3_proxy.add(Fault("status", times=None, status=503))
    for ask in (
        lambda: on_bucket.client.get(f"/v1/models/{model['id']}/content"),
        lambda: on_bucket.client.post("/v1/models", content=model_file + b"\0"),
    ):
        response = ask()
        assert response.status_code == 503, response.text
        assert response.headers["retry-after"] == "5"
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"] == "/problems/store-unavailable"
        assert store.bucket.name not in response.text
    ready = on_bucket.anonymous.get("/readyz")
    assert ready.status_code == 503
    assert "503 SlowDown" in ready.json()["detail"]
    s3_proxy.clear()
    assert list(store.cache.incoming.iterdir()) == []
    assert on_bucket.anonymous.get("/readyz").status_code == 200


def test_deleting_needs_no_store(on_bucket: Api, s3_proxy: S3FaultProxy, model_file: bytes) -> None:
    model = uploaded(on_bucket, model_file)
    for job in on_bucket.client.get("/v1/jobs").json()["data"]:
        on_bucket.client.post(f"/v1/jobs/{job['id']}/cancel")
    s3_proxy.add(Fault("reset", times=None))
    assert on_bucket.client.delete(f"/v1/models/{model['id']}").status_code == 204
    s3_proxy.clear()
    assert list(on_bucket.backend.store.blobs()) == [model["sha256"]]  # the sweep's
