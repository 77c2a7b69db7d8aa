"""`/v1/webhooks`: made, changed, rotated, tried out, deleted; private addresses stay out."""

from __future__ import annotations

from typing import Any

import pytest

from persistence.records import WebhookRecord
from persistence.webhooks.deliveries import Attempt, note_attempt, take_due
from tests.service.conftest import Api

URL = "https://ci.example.com/hooks"


def create(api: Api, **values: Any) -> dict[str, Any]:
    response = api.client.post("/v1/webhooks", json={"url": URL, **values})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"/v1/webhooks/{made['id']}"
    assert response.headers["Cache-Control"] == "no-store"
    return made


def test_made_read_changed_deleted(sql_api: Api) -> None:
    made = create(sql_api, event_types=["job.succeeded"], description="pipeline")
    assert made["secret"].startswith("whsec_")
    path = f"/v1/webhooks/{made['id']}"
    shown = {**made, "secret": None}
    assert sql_api.client.get(path).json() == shown
    assert sql_api.client.get("/v1/webhooks").json()["data"] == [shown]
    changed = sql_api.client.patch(path, json={"event_types": [], "enabled": False})
    assert changed.json() == {**shown, "event_types": [], "enabled": False}
    assert sql_api.client.patch(path, json={}).json() == changed.json()
    assert sql_api.client.delete(path).status_code == 204
    for answer in (sql_api.client.get(path), sql_api.client.delete(path)):
        assert answer.status_code == 404
        assert answer.json()["type"] == "/problems/webhook-not-found"
    assert sql_api.client.get("/v1/webhooks").json()["data"] == []
    with sql_api.backend.database.session(read_only=True) as session:
        assert session.get_one(WebhookRecord, made["id"]).secret == ""


def test_a_repeated_request_makes_one(sql_api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = (
        sql_api.client.post("/v1/webhooks", json={"url": URL}, headers=headers) for _ in range(2)
    )
    assert first.json() == again.json()
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.headers["Location"] == again.headers["Location"]
    other = sql_api.client.post("/v1/webhooks", json={"url": f"{URL}/2"}, headers=headers)
    assert other.status_code == 409
    assert len(sql_api.client.get("/v1/webhooks").json()["data"]) == 1


def test_rotation_gives_a_new_secret_and_keeps_the_old_for_a_while(api: Api) -> None:
    made = create(api)
    path = f"/v1/webhooks/{made['id']}"
    rotated = api.client.post(f"{path}/rotate-secret", json={"grace_seconds": 600})
    assert rotated.status_code == 200
    assert rotated.json()["secret"] != made["secret"]
    assert rotated.json()["previous_secret_expires_at"] is not None
    with api.backend.database.session(read_only=True) as session:
        record = session.get_one(WebhookRecord, made["id"])
        assert record.previous_secret == made["secret"]
        assert record.secret == rotated.json()["secret"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://ci.example.com/", "https://"),
        ("ftp://ci.example.com/", "absolute URL"),
        ("ci.example.com", "absolute URL"),
        ("https:///path", "absolute URL"),
        ("https://user:secret@ci.example.com/", "user name"),
        ("https://ci.example.com/#part", "fragment"),
        ("https://ci.example.com:99999/", "no URL"),
        ("https://ci.example.com:0/", "absolute URL"),
        ("https://[::1", "no URL"),
        ("https://[::1]/", "public addresses"),
        ("https://127.0.0.1/", "public addresses"),
        ("https://169.254.169.254/latest", "public addresses"),
        ("https://[::ffff:10.0.0.1]/", "public addresses"),
        ("https://ci.exam ple.com/", "printable ASCII"),
        ("https://größe.example/", "printable ASCII"),
        ("https://a_b!.example/", "host name"),
        ("https://ci.example.com/\r\nX: y", "printable ASCII"),
    ],
)
def test_urls_that_are_never_called(api: Api, url: str, says: str) -> None:
    made = create(api)
    for response in (
        api.client.post("/v1/webhooks", json={"url": url}),
        api.client.patch(f"/v1/webhooks/{made['id']}", json={"url": url}),
    ):
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["field"] == "url"
        assert says in error["message"]
    assert api.client.get(f"/v1/webhooks/{made['id']}").json()["url"] == URL


def test_unknown_types_are_named(api: Api) -> None:
    response = api.client.post("/v1/webhooks", json={"url": URL, "event_types": ["job.exploded"]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "event_types.0"


def test_the_log_of_a_test_message(sql_api: Api) -> None:
    made = create(sql_api, event_types=["job.failed"])
    path = f"/v1/webhooks/{made['id']}"
    sent = sql_api.client.post(f"{path}/test")
    assert sent.status_code == 200
    delivery = sent.json()
    assert delivery["event_type"] == "webhook.test"
    assert delivery["status"] == "pending"
    with sql_api.backend.database.session() as session:
        now = session.get_one(WebhookRecord, made["id"]).created_at.replace(year=2031)
        (due,) = take_due(session, now, limit=10, hold_seconds=60)
        note_attempt(session, due.id, Attempt(410, "the answer was 410", "gone", 7), now)
    listed = sql_api.client.get(f"{path}/deliveries").json()["data"]
    (seen,) = listed
    assert seen["status"] == "failed"
    (attempt,) = seen["attempts"]
    assert {name: value for name, value in attempt.items() if name != "created_at"} == {
        "number": 1,
        "status_code": 410,
        "error": "the answer was 410",
        "response": "gone",
        "elapsed_ms": 7,
    }
    assert sql_api.client.get(f"{path}/deliveries/{delivery['id']}").json() == seen
    assert sql_api.client.get(f"{path}/deliveries?status=delivered").json()["data"] == []
    # 410 switched it off; sending needs it on
    for action in ("test", f"deliveries/{delivery['id']}/redeliver"):
        refused = sql_api.client.post(f"{path}/{action}")
        assert refused.status_code == 409
        assert "enabled" in refused.json()["hint"]
    on = sql_api.client.patch(path, json={"enabled": True}).json()
    assert on["enabled"] is True
    assert on["failing_since"] is None
    again = sql_api.client.post(f"{path}/deliveries/{delivery['id']}/redeliver").json()
    assert again["status"] == "pending"
    assert again["payload"] == delivery["payload"]


def test_another_tenant_sees_nothing(api: Api) -> None:
    made = create(api)
    path = f"/v1/webhooks/{made['id']}"
    delivery = api.client.post(f"{path}/test").json()["id"]
    stranger = api.stranger
    answers = [
        stranger.get(path),
        stranger.patch(path, json={"enabled": False}),
        stranger.delete(path),
        stranger.post(f"{path}/rotate-secret", json={}),
        stranger.post(f"{path}/test"),
        stranger.get(f"{path}/deliveries"),
        stranger.get(f"{path}/deliveries/{delivery}"),
        stranger.post(f"{path}/deliveries/{delivery}/redeliver"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert stranger.get("/v1/webhooks").json()["data"] == []
    other = stranger.post("/v1/webhooks", json={"url": URL}).json()["id"]
    # a delivery is found under its own webhook only
    assert api.client.get(f"/v1/webhooks/{other}/deliveries/{delivery}").status_code == 404
