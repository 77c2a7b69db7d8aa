"""The log of changes: every operation that may change something leaves an entry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from persistence import audit
from persistence.records import AuditRecord
from tests.service.access.seeds import filled, key_of, seed
from tests.service.access.test_authorisation_matrix import GUARDED, send
from tests.service.conftest import Api

CHANGING = [one for one in GUARDED if one[0] not in ("GET", "HEAD")]


def test_every_change_leaves_an_entry(sql_api: Api, model_file: bytes) -> None:
    api = sql_api
    seeds = seed(api, api.tenant_id, model_file)
    mine, headers = key_of(api, api.tenant_id, ["read", "write", "admin"])
    _, reader = key_of(api, api.tenant_id, ["read"])
    assert len(CHANGING) > 10
    for operation in CHANGING:
        for sender in (reader, headers):
            request_id = f"request-{len(operation[1])}-{operation[0]}-{sender is reader}"
            response = send(api, operation, seeds, {**sender, "X-Request-ID": request_id})
            (entry, *_) = api.client.get(
                f"/v1/audit-log?action={operation[2]['operationId']}&limit=1"
            ).json()["data"]
            assert entry["request_id"] == request_id, operation[:2]
            assert entry["status"] == response.status_code, operation[:2]
            assert (entry["key_id"] == mine) == (sender is headers)
            assert entry["address"] == "testclient"
            ids = [
                part for part in filled(operation[1], seeds).split("/") if part in seeds.values()
            ]
            if ids:
                assert entry["target"] == "/".join(ids)


def test_entries_name_what_was_made_and_are_found_by_filters(api: Api) -> None:
    began = datetime.now(UTC)
    made = api.client.post("/v1/api-keys", json={"name": "ci"}).json()["id"]
    api.client.delete(f"/v1/api-keys/{made}")
    api.client.get("/v1/models")

    def found(**query: str) -> list[str]:
        page = api.client.get("/v1/audit-log", params=query).json()
        return [one["action"] for one in page["data"]]

    assert found(target=made) == ["revoke_api_key", "create_api_key"]
    assert found(since=began.isoformat()) == ["revoke_api_key", "create_api_key"]
    assert found(since=(began + timedelta(hours=1)).isoformat()) == []
    assert found(key_id=made) == []
    first = api.client.get("/v1/audit-log?limit=1").json()
    assert first["has_more"]
    second = api.client.get(f"/v1/audit-log?limit=1&cursor={first['next_cursor']}").json()
    assert [one["action"] for one in second["data"]] == ["create_api_key"]
    assert not second["has_more"]
    assert api.stranger.get("/v1/audit-log").json()["data"] == []


def test_nothing_is_changed_when_no_entry_can_be_made(api: Api) -> None:
    with api.backend.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_log RENAME TO gone")
    assert api.client.post("/v1/api-keys", json={}).status_code == 503
    assert len(api.client.get("/v1/api-keys").json()["data"]) == 1


def test_an_outcome_that_cannot_be_noted_is_logged(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with api.backend.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON audit_log "
            "BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    assert api.client.post("/v1/api-keys", json={}).status_code == 201
    (entry,) = api.client.get("/v1/audit-log").json()["data"]
    assert (entry["action"], entry["status"]) == ("create_api_key", None)
    assert "an audit entry could not be completed" in caplog.text


def test_old_entries_are_dropped(api: Api) -> None:
    for _ in range(3):
        api.client.post("/v1/api-keys", json={})
    with api.backend.database.session() as session:
        session.get_one(AuditRecord, 1).created_at = datetime(2020, 1, 1, tzinfo=UTC)
    with api.backend.database.session() as session:
        assert audit.forget(session, datetime(2021, 1, 1, tzinfo=UTC)) == 1
    assert len(api.client.get("/v1/audit-log").json()["data"]) == 2
