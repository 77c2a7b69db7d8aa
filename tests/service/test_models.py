"""`/v1/models`: upload, dedupe, read, download, delete."""

from __future__ import annotations

import base64
import hashlib
import io
import time

import pytest
from sqlalchemy import select

from persistence import job_queue, models
from persistence.artifact_store import store_file
from persistence.records import JobRecord, OutboxRecord
from service.uploads.removal import Arrival, remove_arrival
from tests.service.conftest import Api
from tests.service.test_archive_gate import rewritten


def upload(api: Api, content: bytes, **options: object) -> dict[str, object]:
    response = api.client.post("/v1/models", content=content, **options)
    assert response.status_code == 201, response.text
    return response.json()


def test_an_upload_becomes_a_model_that_waits_for_its_inspection(
    sql_api: Api, model_file: bytes, model_copy: bytes
) -> None:
    response = sql_api.client.post("/v1/models?name=tiny", content=model_file)
    assert response.status_code == 201
    model = response.json()
    assert response.headers["Location"] == f"/v1/models/{model['id']}"
    assert model["name"] == "tiny"
    assert model["upload_sha256"] == hashlib.sha256(model_file).hexdigest()
    assert model["sha256"] == hashlib.sha256(model_copy).hexdigest()
    assert model["bytes"] == len(model_copy)
    assert len(sql_api.blobs()) == 1  # the upload is gone
    assert model["status"] == "uploaded"
    with sql_api.backend.database.session() as session:
        job = session.scalars(select(JobRecord)).one()
        assert (job.type, job.status, job.queue) == ("inspect", "queued", "cpu")
        assert job.model_id == model["id"]
        assert session.scalars(select(OutboxRecord)).one().job_id == job.id
    assert sql_api.client.get(f"/v1/models/{model['id']}").json() == model
    listed = sql_api.client.get("/v1/models").json()
    assert listed == {"data": [model], "next_cursor": None, "has_more": False}


def test_the_same_bytes_are_the_same_model_in_one_tenant_only(
    sql_api: Api, model_file: bytes
) -> None:
    first = upload(sql_api, model_file)
    again = sql_api.client.post("/v1/models?name=other", content=model_file)
    assert again.status_code == 200
    assert again.json() == first
    assert again.headers["Location"] == f"/v1/models/{first['id']}"
    other = sql_api.stranger.post("/v1/models", content=model_file)
    assert other.status_code == 201
    assert other.json()["id"] != first["id"]
    assert len(sql_api.blobs()) == 1


def test_a_multipart_upload_is_the_file_and_its_name(api: Api, model_file: bytes) -> None:
    response = api.client.post(
        "/v1/models", files={"file": ("net.pt", model_file)}, data={"name": "from a form"}
    )
    assert response.status_code == 201, response.text
    assert response.json()["upload_sha256"] == hashlib.sha256(model_file).hexdigest()
    assert response.json()["name"] == "from a form"


def test_the_body_is_checked_against_its_digest(api: Api, model_file: bytes) -> None:
    digest = hashlib.sha256(model_file).digest()
    field = f"sha-256=:{base64.b64encode(digest).decode()}:"
    good = api.client.post("/v1/models", content=model_file, headers={"Content-Digest": field})
    assert good.status_code == 201
    wrong = api.client.post(
        "/v1/models", content=model_file + b"x", headers={"X-Content-SHA256": digest.hex()}
    )
    assert wrong.status_code == 400
    assert wrong.json()["type"] == "/problems/digest-mismatch"
    assert len(api.blobs()) == 1


@pytest.mark.parametrize("name", ["Content-Digest", "X-Content-SHA256"])
def test_an_unreadable_digest_is_refused(api: Api, model_file: bytes, name: str) -> None:
    value = "sha-256=:AAAA:" if name == "Content-Digest" else "abc"
    response = api.client.post("/v1/models", content=model_file, headers={name: value})
    assert response.status_code == 400
    assert response.json()["type"] == "/problems/digest-invalid"
    assert api.blobs() == []


def test_a_compressed_body_is_refused(api: Api, model_file: bytes) -> None:
    """Taken as it is, it would be a gzip file; unpacked, a model of another hash."""
    for kind in ("models", "datasets"):
        headers = {"Content-Encoding": "gzip"}
        response = api.client.post(f"/v1/{kind}", content=model_file, headers=headers)
        assert response.status_code == 415
        assert "gzip" in response.json()["detail"]
        assert response.headers["Accept-Encoding"] == "identity"
    assert api.blobs() == []


def test_another_tenants_model_is_not_there(api: Api, model_file: bytes) -> None:
    path = f"/v1/models/{upload(api, model_file)['id']}"
    for method, suffix in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        response = api.stranger.request(method, path + suffix)
        assert response.status_code == 404
        assert response.json()["type"] == "/problems/model-not-found"
    assert api.stranger.get("/v1/models").json()["data"] == []


def test_models_are_listed_newest_first_page_by_page(sql_api: Api, model_file: bytes) -> None:
    with sql_api.backend.database.session() as session:
        made = [
            models.add(
                session, tenant_id=sql_api.tenant_id, name=str(n), sha256=f"{n:064x}", size=1
            ).id
            for n in range(5)
        ]
    made.sort(reverse=True)
    seen: list[str] = []
    cursor = ""
    for expected in (2, 2, 1):
        page = sql_api.client.get(f"/v1/models?limit=2{cursor}").json()
        assert len(page["data"]) == expected
        seen += [model["id"] for model in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert not page["has_more"]
    assert seen == made
    assert sql_api.client.get("/v1/models?status=ready").json()["data"] == []


def test_a_download_is_the_copy(api: Api, model_file: bytes, model_copy: bytes) -> None:
    model = upload(api, model_file)
    response = api.client.get(f"/v1/models/{model['id']}/content")
    assert response.content == model_copy != model_file
    assert response.headers["ETag"] == f'"{model["sha256"]}"'
    assert response.headers["Content-Length"] == str(len(model_copy))
    digest = base64.b64encode(hashlib.sha256(model_copy).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    head = api.client.head(f"/v1/models/{model['id']}/content")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Length"] == str(len(model_copy))


def test_the_copy_of_a_model_is_the_same_model(
    sql_api: Api, model_file: bytes, model_copy: bytes
) -> None:
    first = upload(sql_api, model_file)
    downloaded = sql_api.client.post("/v1/models", content=model_copy)
    assert downloaded.status_code == 200
    assert downloaded.json() == first
    saved_again = rewritten(model_file, lambda entries: [*entries, ("archive/extra/a", b"")])
    assert sql_api.client.post("/v1/models", content=saved_again).json() == first
    assert len(sql_api.blobs()) == 1


def test_a_model_of_before_keeps_its_file(sql_api: Api, model_file: bytes) -> None:
    """Its row names the file as it came; the same file again is still that model."""
    blob = store_file(sql_api.backend.store, io.BytesIO(model_file))
    with sql_api.backend.database.session() as session:
        before = models.add(
            session, tenant_id=sql_api.tenant_id, name="old", sha256=blob.sha256, size=blob.bytes,
            upload_sha256=blob.sha256,
        ).id  # fmt: skip
    again = sql_api.client.post("/v1/models", content=model_file)
    assert (again.status_code, again.json()["id"]) == (200, before)
    content = sql_api.client.get(f"/v1/models/{before}/content").content
    assert content == model_file
    assert len(sql_api.blobs()) == 1


def test_bytes_that_arrive_again_meanwhile_stay(api: Api, model_file: bytes) -> None:
    """Two tenants send the same file: the first to be done leaves it to the other."""
    store = api.backend.store
    blob = store_file(store, io.BytesIO(model_file))
    first = Arrival.of(store, blob.sha256)
    time.sleep(0.02)  # file times are as exact as the kernel's clock ticks
    store_file(store, io.BytesIO(model_file))
    assert not remove_arrival(api.backend.database, store, first)
    assert store.exists(blob.sha256)
    assert remove_arrival(api.backend.database, store, Arrival.of(store, blob.sha256))
    assert not store.exists(blob.sha256)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-7", -7, None)],
)
def test_a_range_is_a_part(
    api: Api, model_copy: bytes, header: str, start: int, end: int | None
) -> None:
    model = upload(api, model_copy)
    response = api.client.get(f"/v1/models/{model['id']}/content", headers={"Range": header})
    assert response.status_code == 206
    assert response.content == model_copy[start:end]
    first = start % len(model_copy)
    last = first + len(response.content) - 1
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(model_copy)}"


def test_ranges_follow_if_range_and_416(api: Api, model_copy: bytes) -> None:
    model = upload(api, model_copy)
    url = f"/v1/models/{model['id']}/content"
    ranged = {"Range": "bytes=0-3"}
    same = api.client.get(url, headers={**ranged, "If-Range": f'"{model["sha256"]}"'})
    assert same.status_code == 206
    changed = api.client.get(url, headers={**ranged, "If-Range": '"old"'})
    assert changed.status_code == 200
    assert changed.content == model_copy
    beyond = api.client.get(url, headers={"Range": f"bytes={len(model_copy)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(model_copy)}"
    assert beyond.headers["Content-Type"] == "application/problem+json"
    far = api.client.get(url, headers={"Range": f"Bytes={10**30}-"})
    assert far.status_code == 416
    for ignored in ("bytes=5-2", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert api.client.get(url, headers={"Range": ignored}).status_code == 200


def test_a_known_copy_is_not_sent_again(api: Api, model_file: bytes) -> None:
    model = upload(api, model_file)
    url = f"/v1/models/{model['id']}/content"
    for header in (f'"{model["sha256"]}"', f'W/"{model["sha256"]}"', '"x", *'):
        response = api.client.get(url, headers={"If-None-Match": header})
        assert response.status_code == 304
        assert response.content == b""
    assert api.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_deleting_calls_off_the_inspection_and_removes_the_file(
    sql_api: Api, model_file: bytes
) -> None:
    model = upload(sql_api, model_file)
    assert sql_api.client.delete(f"/v1/models/{model['id']}").status_code == 204
    assert sql_api.client.get(f"/v1/models/{model['id']}").status_code == 404
    assert sql_api.blobs() == []
    with sql_api.backend.database.session() as session:
        assert session.scalars(select(JobRecord)).one().status == "canceled"
    again = upload(sql_api, model_file)
    assert again["id"] != model["id"]


def test_a_file_stays_while_another_tenant_has_it(
    api: Api, model_file: bytes, model_copy: bytes
) -> None:
    mine = upload(api, model_file)
    theirs = api.stranger.post("/v1/models", content=model_file).json()
    assert api.client.delete(f"/v1/models/{mine['id']}").status_code == 204
    assert api.stranger.get(f"/v1/models/{theirs['id']}/content").content == model_copy


def test_a_model_in_use_stays(sql_api: Api, model_file: bytes, recipe: dict[str, object]) -> None:
    model = upload(sql_api, model_file)
    job = sql_api.client.post("/v1/jobs", json={"model_id": model["id"], "recipe": recipe}).json()
    response = sql_api.client.delete(f"/v1/models/{model['id']}")
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"] == "/problems/model-in-use"
    assert job["id"] in problem["detail"]
    assert sql_api.client.get(f"/v1/models/{model['id']}").status_code == 200
    sql_api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert sql_api.client.delete(f"/v1/models/{model['id']}").status_code == 204
    assert sql_api.client.get(f"/v1/jobs/{job['id']}").json()["model_id"] == model["id"]


def test_a_rejection_that_was_not_the_files_fault_is_tried_again(
    api: Api, model_file: bytes
) -> None:
    model = upload(api, model_file)
    with api.backend.database.session() as session:
        job = session.scalars(select(JobRecord)).one()
        held = job_queue.claim(session, job.id, "worker", 60)
        assert held is not None
        error = {"type": "attempts-exhausted", "title": "The worker died.", "retryable": True}
        assert job_queue.finish(session, held, "failed", error=error)
    assert api.client.get(f"/v1/models/{model['id']}").json()["status"] == "rejected"
    again = api.client.post("/v1/models", content=model_file)
    assert again.status_code == 200
    assert again.json()["status"] == "uploaded"
    with api.backend.database.session() as session:
        statuses = session.scalars(select(JobRecord.status).order_by(JobRecord.id)).all()
        assert statuses == ["failed", "queued"]
