"""`/v1/uploads`: parts in any order, again, in parallel; put together once; swept when given up."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from httpx import Response
from secateur.resources import Upload
from sqlalchemy import func, select, update

from persistence import uploads
from persistence.records import DatasetRecord, ModelRecord, UploadPartRecord, UploadRecord, utc_now
from persistence.settings import Settings
from tests.service.conftest import Api, serve
from workers.blob_sweep import sweep_blobs
from workers.expiry import expire_once


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def begin(api: Api, kind: str = "dataset", **fields: Any) -> str:
    response = api.client.post("/v1/uploads", json={"kind": kind, **fields})
    assert response.status_code == 201, response.text
    upload = Upload.model_validate(response.json())
    assert upload.status == "open"
    assert response.headers["Location"] == f"/v1/uploads/{upload.id}"
    return upload.id


def put(api: Api, upload: str, number: int, content: bytes, **headers: str) -> Response:
    url = f"/v1/uploads/{upload}/parts/{number}"
    response: Any = api.client.put(url, content=content, headers=headers)
    return response


def pieces(content: bytes, count: int) -> list[bytes]:
    size = -(-len(content) // count)
    return [content[start : start + size] for start in range(0, len(content), size)]


def send_all(api: Api, upload: str, content: bytes, count: int = 3) -> list[dict[str, Any]]:
    made = []
    for number, piece in reversed(list(enumerate(pieces(content, count), 1))):
        response = put(api, upload, number, piece)
        assert response.status_code == 200, response.text
        made.append(response.json())
    return made


def complete(api: Api, upload: str, body: Any = None, **headers: str) -> Response:
    response: Any = api.client.post(f"/v1/uploads/{upload}/complete", json=body, headers=headers)
    return response


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_parts_become_what_the_file_would_have_been(
    sql_api: Api, kind: str, model_copy: bytes, dataset_file: bytes
) -> None:
    content = model_copy if kind == "model" else dataset_file  # what is kept is what was sent
    upload = begin(sql_api, kind, name="big", bytes=len(content), sha256=sha(content))
    made = send_all(sql_api, upload, content, 4)
    shown = sql_api.client.get(f"/v1/uploads/{upload}").json()
    assert (shown["received_parts"], shown["received_bytes"]) == (4, len(content))
    listed = sql_api.client.get(f"/v1/uploads/{upload}/parts").json()["data"]
    assert listed == sorted(made, key=lambda part: part["number"])
    parts = [{"number": part["number"], "sha256": part["sha256"]} for part in made]
    response = complete(sql_api, upload, {"parts": parts})
    assert response.status_code == 201, response.text
    resource = response.json()
    assert (resource["name"], resource["sha256"]) == ("big", sha(content))
    assert response.headers["Location"] == f"/v1/{kind}s/{resource['id']}"
    content_url = f"/v1/{kind}s/{resource['id']}/content"
    assert sql_api.client.get(content_url).content == content
    assert len(sql_api.blobs()) == 1  # the parts are gone
    ended = sql_api.client.get(f"/v1/uploads/{upload}").json()
    assert (ended["status"], ended["resource_id"]) == ("completed", resource["id"])
    again = complete(sql_api, upload)
    assert (again.status_code, again.content) == (201, response.content)
    assert again.headers["Location"] == response.headers["Location"]
    assert put(sql_api, upload, 1, b"x").json()["type"] == "/problems/upload-ended"
    assert sql_api.client.delete(f"/v1/uploads/{upload}").status_code == 409
    direct = sql_api.client.post(f"/v1/{kind}s", content=content)
    assert (direct.status_code, direct.json()["id"]) == (200, resource["id"])
    second = begin(sql_api, kind)
    send_all(sql_api, second, content, 1)
    known = complete(sql_api, second)
    assert (known.status_code, known.json()["id"]) == (200, resource["id"])
    assert len(sql_api.blobs()) == 1


def test_a_part_is_replaced_and_checked(api: Api, dataset_file: bytes) -> None:
    upload = begin(api)
    first, second = pieces(dataset_file, 2)
    put(api, upload, 1, b"something else")
    digest = base64.b64encode(hashlib.sha256(first).digest()).decode()
    for header in ("Content-Digest", "Repr-Digest"):
        right = put(api, upload, 1, first, **{header: f"sha-256=:{digest}:"})
        assert right.json() == {"number": 1, "sha256": sha(first), "bytes": len(first)}
        wrong = put(api, upload, 1, b"x", **{header: f"sha-256=:{digest}:"})
        assert (wrong.status_code, wrong.json()["type"]) == (400, "/problems/digest-mismatch")
    assert put(api, upload, 1, first).json() == right.json()
    assert put(api, upload, 1, b"").json()["type"] == "/problems/upload-empty"
    assert len(api.blobs()) == 1  # what was replaced is gone
    put(api, upload, 2, second)
    assert complete(api, upload).status_code == 201


def test_gaps_and_differences_are_named_and_the_upload_stays_open(
    api: Api, dataset_file: bytes
) -> None:
    upload = begin(api, bytes=len(dataset_file), sha256=sha(dataset_file))
    nothing = complete(api, upload).json()
    assert nothing["detail"] == "Parts that did not arrive: 1."
    one, two, three = pieces(dataset_file, 3)
    put(api, upload, 1, one)
    put(api, upload, 3, three)
    gap = complete(api, upload)
    assert (gap.status_code, gap.json()["type"]) == (409, "/problems/upload-incomplete")
    assert gap.json()["detail"] == "Parts that did not arrive: 2."
    put(api, upload, 2, two[:-1])
    short = complete(api, upload).json()
    assert f"{len(dataset_file) - 1} arrived" in short["detail"]
    put(api, upload, 2, two[:-1] + b"!")
    damaged = complete(api, upload)
    assert (damaged.status_code, damaged.json()["type"]) == (409, "/problems/upload-incomplete")
    assert sha(dataset_file) in damaged.json()["detail"]
    assert len(api.blobs()) == 3  # what they made together is gone
    listed = [{"number": n, "sha256": sha(part)} for n, part in enumerate((one, two), 1)]
    other = complete(api, upload, {"parts": listed}).json()
    assert [fault["field"] for fault in other["errors"]] == ["parts.1.sha256", "parts"]
    beyond = [*listed, {"number": 4, "sha256": sha(b"")}]
    assert complete(api, upload, {"parts": beyond}).json()["detail"].endswith(" 4.")
    put(api, upload, 2, two)
    assert complete(api, upload).status_code == 201


def test_a_refused_file_ends_the_upload(api: Api) -> None:
    upload = begin(api, "model")
    send_all(api, upload, b"PK no model at all", 2)
    refused = complete(api, upload)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/not-torchscript")
    assert api.blobs() == []
    shown = api.client.get(f"/v1/uploads/{upload}").json()
    assert shown["status"] == "refused"
    assert shown["error"]["type"] == "/problems/not-torchscript"
    again = complete(api, upload)
    assert again.status_code == 422
    assert {**again.json(), "instance": ""} == {**refused.json(), "instance": ""}
    assert put(api, upload, 1, b"x").json()["type"] == "/problems/upload-ended"


def test_limits_hold_while_parts_arrive(api_settings: Settings) -> None:
    settings = api_settings.model_copy(update={"max_dataset_bytes": 100, "max_part_bytes": 40})
    for api in serve(settings):
        large = api.client.post("/v1/uploads", json={"kind": "dataset", "bytes": 101})
        assert large.json()["type"] == "/problems/upload-too-large"
        upload = begin(api)
        for number in (1, 2):
            assert put(api, upload, number, bytes([number]) * 40).status_code == 200
        assert put(api, upload, 3, b"x" * 41).json()["type"] == "/problems/part-too-large"
        over = put(api, upload, 3, b"x" * 21)
        assert over.status_code == 413
        assert "larger than 20 bytes" in over.json()["detail"]
        chunked: Any = api.client.put(
            f"/v1/uploads/{upload}/parts/3", content=iter([b"x" * 11, b"x" * 10])
        )
        assert chunked.status_code == 413
        assert put(api, upload, 2, b"y" * 40).status_code == 200  # in place of the earlier
        assert put(api, upload, 3, b"x" * 20).status_code == 200
        announced = begin(api, bytes=10)
        assert "announced" in put(api, announced, 1, b"x" * 11).json()["detail"]
        for number in (0, 10_001, "a"):
            response: Any = api.client.put(f"/v1/uploads/{upload}/parts/{number}", content=b"x")
            assert response.status_code == 422
        assert len(api.blobs()) == 3


def test_a_part_may_be_larger_than_a_json_body(api: Api) -> None:
    upload = begin(api)
    assert put(api, upload, 1, bytes(5 * 2**20)).status_code == 200


def test_parts_come_at_once_and_complete_makes_one(sql_api: Api, dataset_file: bytes) -> None:
    upload = begin(sql_api)
    numbered = list(enumerate(pieces(dataset_file, 8), 1))
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda one: put(sql_api, upload, *one).status_code, numbered * 2))
        assert set(sent) == {200}
        answers = list(pool.map(lambda _: complete(sql_api, upload), range(8)))
    final = complete(sql_api, upload)
    assert final.status_code == 201
    for answer in answers:
        if answer.status_code == 409:  # while another was at it
            assert answer.json()["type"] == "/problems/upload-busy"
            assert answer.headers["Retry-After"]
        else:
            assert (answer.status_code, answer.content) == (201, final.content)
    assert any(answer.status_code == 201 for answer in answers)
    with sql_api.backend.database.session() as session:
        assert session.scalar(select(func.count()).select_from(DatasetRecord)) == 1
    assert len(sql_api.blobs()) == 1


def test_an_aborted_upload_keeps_nothing(sql_api: Api, dataset_file: bytes) -> None:
    keep, drop = begin(sql_api), begin(sql_api)
    first, second = pieces(dataset_file, 2)
    for upload, parts in ((keep, [first]), (drop, [first, second])):
        for number, part in enumerate(parts, 1):
            put(sql_api, upload, number, part)
    path = f"/v1/uploads/{drop}"
    assert sql_api.stranger.delete(path).status_code == 404
    assert sql_api.client.delete(path).status_code == 204
    assert sql_api.client.delete(path).status_code == 204
    assert sql_api.client.get(path).json()["status"] == "aborted"
    assert complete(sql_api, drop).json()["type"] == "/problems/upload-ended"
    assert [blob.name for blob in sql_api.blobs()] == [sha(first)]  # the other upload has it
    sweep_blobs(sql_api.backend.database, sql_api.backend.store, min_age_seconds=0)
    assert [blob.name for blob in sql_api.blobs()] == [sha(first)]


def test_strangers_see_nothing(api: Api) -> None:
    upload = begin(api)
    path = f"/v1/uploads/{upload}"
    assert api.stranger.get(path).status_code == 404
    assert api.stranger.get(f"{path}/parts").status_code == 404
    assert api.stranger.put(f"{path}/parts/1", content=b"x").status_code == 404
    assert api.stranger.post(f"{path}/complete").status_code == 404
    assert api.stranger.get("/v1/uploads").json()["data"] == []
    assert api.blobs() == []


def test_uploads_are_listed_and_found_by_their_hash(api: Api) -> None:
    ids = [begin(api, sha256=sha(bytes([number % 2]))) for number in range(4)]
    api.client.delete(f"/v1/uploads/{ids[0]}")

    def listed(query: str) -> list[str]:
        response = api.client.get(f"/v1/uploads?{query}")
        assert response.status_code == 200, response.text
        return [one["id"] for one in response.json()["data"]]

    assert listed("") == sorted(ids, reverse=True)
    assert listed(f"sha256={sha(bytes([0]))}") == [ids[2], ids[0]]
    assert listed(f"sha256={sha(bytes([0]))}&status=open&kind=dataset") == [ids[2]]
    assert listed("kind=model") == []
    first = api.client.get("/v1/uploads?limit=3").json()
    assert listed(f"cursor={first['next_cursor']}") == [ids[0]]
    for number in range(1, 4):
        put(api, ids[1], number, bytes([number]))
    page = api.client.get(f"/v1/uploads/{ids[1]}/parts?limit=2").json()
    assert page["has_more"]
    rest = api.client.get(f"/v1/uploads/{ids[1]}/parts?cursor={page['next_cursor']}").json()
    assert [part["number"] for part in [*page["data"], *rest["data"]]] == [1, 2, 3]


def test_expired_uploads_are_swept(sql_api: Api) -> None:
    backend = sql_api.backend
    old, young = begin(sql_api), begin(sql_api)
    put(sql_api, old, 1, b"old")
    put(sql_api, young, 1, b"young")

    def turn_back(upload: str, hours: float) -> None:
        with backend.database.session() as session:
            past = utc_now() - timedelta(hours=hours)
            session.execute(
                update(UploadRecord).where(UploadRecord.id == upload).values(expires_at=past)
            )

    turn_back(old, 1)
    expire_once(backend.database, backend.store, backend.settings)
    assert sql_api.client.get(f"/v1/uploads/{old}").json()["status"] == "aborted"
    assert sql_api.client.get(f"/v1/uploads/{young}").json()["status"] == "open"
    assert [blob.name for blob in sql_api.blobs()] == [sha(b"young")]
    turn_back(old, 1)
    expire_once(backend.database, backend.store, backend.settings)
    assert sql_api.client.get(f"/v1/uploads/{old}").status_code == 404
    assert sql_api.client.get(f"/v1/uploads/{young}").status_code == 200


def test_a_request_that_died_blocks_nothing(api: Api, dataset_file: bytes) -> None:
    """Its claim runs out; until then nothing changes beneath it."""
    backend = api.backend
    upload = begin(api)
    send_all(api, upload, dataset_file)

    def claimed(seconds: float) -> None:
        with backend.database.session() as session:
            record = uploads.get_for_update(session, api.tenant_id, upload)
            assert record is not None
            uploads.claim(record, "dead", utc_now() + timedelta(seconds=seconds))

    claimed(60)
    assert api.client.get(f"/v1/uploads/{upload}").json()["status"] == "completing"
    for response in (
        complete(api, upload),
        put(api, upload, 1, b"x"),
        api.client.delete(f"/v1/uploads/{upload}"),
    ):
        assert (response.status_code, response.headers["Retry-After"]) == (409, "2")
    assert len(api.blobs()) == 3
    claimed(-1)
    assert complete(api, upload).status_code == 201


def test_a_part_whose_bytes_are_lost_is_asked_for_again(api: Api, dataset_file: bytes) -> None:
    upload = begin(api)
    send_all(api, upload, dataset_file, 2)
    first = pieces(dataset_file, 2)[0]
    api.backend.store.delete(sha(first))
    lost = complete(api, upload)
    assert (lost.status_code, lost.json()["type"]) == (409, "/problems/upload-incomplete")
    assert "part 1" in lost.json()["detail"]
    put(api, upload, 1, first)
    assert complete(api, upload).status_code == 201


def test_keys_of_begin_and_complete(api: Api, dataset_file: bytes) -> None:
    key = {"Idempotency-Key": "k1"}
    body = {"kind": "dataset", "name": "x"}
    first = api.client.post("/v1/uploads", json=body, headers=key)
    again = api.client.post("/v1/uploads", json=body, headers=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(api.client.get("/v1/uploads").json()["data"]) == 1
    upload = first.json()["id"]
    send_all(api, upload, dataset_file)
    assert complete(api, upload, **key).status_code == 409  # of another path
    made = complete(api, upload, **{"Idempotency-Key": "k2"})
    replay = complete(api, upload, **{"Idempotency-Key": "k2"})
    assert (made.status_code, replay.status_code, replay.content) == (201, 201, made.content)
    assert replay.headers["Idempotent-Replayed"] == "true"


def test_nothing_of_a_tenant_that_is_gone(api: Api) -> None:
    upload = begin(api)
    put(api, upload, 1, b"x")
    with api.backend.database.session() as session:
        session.delete(session.get_one(UploadRecord, upload))
    with api.backend.database.session() as session:
        assert session.scalars(select(UploadPartRecord)).all() == []
        assert session.scalars(select(ModelRecord)).all() == []
    sweep_blobs(api.backend.database, api.backend.store, min_age_seconds=0)
    assert api.blobs() == []
