"""A creating request that is sent again: one object, one answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import yaml
from fastapi import Response
from secateur.resources import Limits, Page
from sqlalchemy import select
from sqlalchemy.orm import Session

from persistence.records import IdempotencyRecord, ModelRecord, TenantRecord, utc_now
from persistence.settings import Settings
from service import openapi
from service.idempotency import IdempotencyKeyReused, Once
from tests.service.conftest import Api
from workers.expiry import expire_once

KEY = {"Idempotency-Key": "0192"}
CREATES_NOTHING = {"/v1/jobs/{job_id}/cancel"}
"""A cancel is answered the same however often."""


def test_every_creating_post_takes_a_key() -> None:
    paths = yaml.safe_load(openapi.FILE.read_text())["paths"]
    creating = {
        path: methods["post"]
        for path, methods in paths.items()
        if path not in CREATES_NOTHING
        and {"201", "202"} & methods.get("post", {"responses": {}})["responses"].keys()
    }
    assert {"/v1/models", "/v1/datasets", "/v1/jobs"} <= creating.keys()
    for path, operation in creating.items():
        headers = {
            one["name"].lower() for one in operation.get("parameters", []) if one["in"] == "header"
        }
        assert "idempotency-key" in headers, f"POST {path} takes no Idempotency-Key"
        assert "409" in operation["responses"], f"POST {path} does not tell of 409"


@pytest.mark.parametrize("collection", ["/v1/models", "/v1/datasets"])
def test_an_upload_is_answered_the_same_again(
    api: Api, collection: str, model_file: bytes, dataset_file: bytes
) -> None:
    content = model_file if collection == "/v1/models" else dataset_file
    first = api.client.post(collection, content=content, headers=KEY)
    assert first.status_code == 201
    assert "Idempotent-Replayed" not in first.headers
    again = api.client.post(collection, content=content, headers=KEY)
    # without the key it would be 200: these bytes are an object already
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert api.client.post(collection, content=content).status_code == 200
    for other in (
        api.client.post(collection, content=content + b"x", headers=KEY),
        api.client.post(f"{collection}?name=other", content=content, headers=KEY),
        api.client.post("/v1/jobs", json={}, headers=KEY),
    ):
        assert other.status_code == 409, other.text
        assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert len(api.blobs()) == 1
    # another tenant's keys are its own
    assert api.stranger.post(collection, content=content, headers=KEY).status_code == 201


def kept_answers(api: Api) -> str:
    with api.backend.database.session(read_only=True) as session:
        return str([one.body for one in session.scalars(select(IdempotencyRecord))])


@pytest.mark.parametrize("what", ["key", "rotation", "webhook"])
def test_an_answer_with_a_secret_is_given_again_and_kept_sealed(sql_api: Api, what: str) -> None:
    api = sql_api
    made = api.client.post("/v1/api-keys", json={"name": "first", "scopes": ["admin"]}).json()
    path, body = {
        "key": ("/v1/api-keys", {"name": "ci", "scopes": ["read"]}),
        "rotation": (f"/v1/api-keys/{made['id']}/rotate", {"grace_seconds": 60}),
        "webhook": ("/v1/webhooks", {"url": "https://ci.example.com/hook"}),
    }[what]
    first = api.client.post(path, json=body, headers=KEY)
    assert first.status_code == 201, first.text
    secret = first.json()["secret"]
    again = api.client.post(path, json=body, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Cache-Control"] == "no-store"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert secret not in kept_answers(api)
    assert secret.removeprefix("whsec_").removeprefix("sk_") not in kept_answers(api)
    different = body | ({"grace_seconds": 61} if what == "rotation" else {"description": "x"})
    if what == "key":
        different = body | {"name": "other"}
    other = api.client.post(path, json=different, headers=KEY)
    assert (other.status_code, other.json()["type"]) == (409, "/problems/idempotency-key-reused")
    # what it was sealed with is not there with another key of the tenant
    by_another = {**KEY, "Authorization": f"Bearer {made['secret']}"}
    refused = api.client.post(path, json=body, headers=by_another)
    assert refused.status_code == 409, refused.text
    without = api.client.post(path, json=body)
    if what == "rotation":
        assert (without.status_code, without.json()["type"]) == (409, "/problems/api-key-over")
    else:
        assert without.json()["secret"] != secret


def test_what_was_made_may_be_gone(api: Api, dataset_file: bytes) -> None:
    first = api.client.post("/v1/datasets", content=dataset_file, headers=KEY)
    assert api.client.delete(first.headers["Location"]).status_code == 204
    again = api.client.post("/v1/datasets", content=dataset_file, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert api.client.get(first.headers["Location"]).status_code == 404
    assert api.blobs() == []  # the bytes that came again are nobody's


def test_a_refused_request_leaves_its_key_free(api: Api, dataset_file: bytes) -> None:
    refused = api.client.post("/v1/datasets", content=b"no dataset", headers=KEY)
    assert refused.status_code == 422
    assert api.client.post("/v1/datasets", content=dataset_file, headers=KEY).is_success


def test_many_at_once_make_one(sql_api: Api, dataset_file: bytes) -> None:
    def send(_: int) -> tuple[int, str]:
        response = sql_api.client.post("/v1/datasets", content=dataset_file, headers=KEY)
        return response.status_code, response.text

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(send, range(12)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201


class Made(Page[str]):
    """Something with an id."""

    id: str = "mdl_1"


def test_a_crash_takes_the_key_and_the_object(sql_api: Api) -> None:
    def once() -> Once:
        return Once(sql_api.tenant_id, "POST /x", "key", Response(), sql_api.backend.database)

    def make(session: Session, *, crash: bool) -> Made:
        session.add(ModelRecord(tenant_id=sql_api.tenant_id, sha256="0" * 64, bytes=1))
        session.flush()
        if crash:
            raise ConnectionError("the process is gone")
        return Made(data=["made"])

    body = Limits.model_construct(max_model_bytes=1)
    with pytest.raises(ConnectionError):
        once().create(Made, body, lambda session: make(session, crash=True), collection="/x")
    with sql_api.backend.database.session() as session:
        assert session.scalars(select(ModelRecord)).all() == []
        assert session.scalars(select(IdempotencyRecord)).all() == []
    for _ in range(2):
        made = once().create(
            Made, body, lambda session: make(session, crash=False), collection="/x"
        )
        assert made.data == ["made"]
    with sql_api.backend.database.session() as session:
        assert len(session.scalars(select(ModelRecord)).all()) == 1
    with pytest.raises(IdempotencyKeyReused):
        once().create(
            Made,
            Limits.model_construct(max_model_bytes=2),
            lambda session: make(session, crash=False),
            collection="/x",
        )


def test_keys_are_forgotten_in_time(sql_api: Api) -> None:
    database, settings = sql_api.backend.database, Settings(idempotency_seconds=3600)
    with database.session() as session:
        tenant = session.get_one(TenantRecord, sql_api.tenant_id)
        for key, hours in (("old", 2), ("young", 0)):
            session.add(
                IdempotencyRecord(
                    tenant_id=tenant.id, key=key, operation="POST /x", request_sha256="0" * 64,
                    status=201, headers={}, body={}, created_at=utc_now() - timedelta(hours=hours),
                )
            )  # fmt: skip
    expire_once(database, sql_api.backend.store, settings)
    with database.session() as session:
        assert session.scalars(select(IdempotencyRecord.key)).all() == ["young"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_a_length(api: Api, dataset_file: bytes, key: str) -> None:
    headers: dict[str, Any] = {"Idempotency-Key": key}
    response = api.client.post("/v1/datasets", content=dataset_file, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "idempotency-key"
    assert api.client.post("/v1/datasets", content=dataset_file).status_code == 201
