"""API keys: scopes, expiry, rotation, the last one, and the cache of verified ones."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from persistence import api_keys
from persistence.records import ApiKeyRecord
from service.access.key_cache import Caller, KeyCache
from tests.service.conftest import Api


def made(api: Api, **body: Any) -> tuple[str, dict[str, str]]:
    """Id of a new key, and the header that sends it."""
    response = api.client.post("/v1/api-keys", json=body)
    assert response.status_code == 201, response.text
    return response.json()["id"], {"Authorization": f"Bearer {response.json()['secret']}"}


def own_key(api: Api) -> str:
    """Id of the key that `api.client` sends."""
    found: str = api.client.get("/v1/api-keys").json()["data"][-1]["id"]
    return found


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("read", {"GET /v1/models"}), ("write", {"POST /v1/jobs"}), ("admin", {"GET /v1/api-keys"})],
)
def test_a_key_may_do_what_its_scope_says_and_no_more(
    api: Api, scope: str, allowed: set[str]
) -> None:
    _, headers = made(api, scopes=[scope])
    for operation, needed in (
        ("GET /v1/models", "read"),
        ("POST /v1/jobs", "write"),
        ("GET /v1/api-keys", "admin"),
    ):
        response = api.anonymous.request(*operation.split(), headers=headers)
        if operation in allowed:
            assert response.status_code in (200, 422)
            continue
        assert response.status_code == 403
        assert response.json()["type"] == "/problems/insufficient-scope"
        assert f"`{needed}`" in response.json()["detail"]
        challenge = response.headers["WWW-Authenticate"]
        assert f'error="insufficient_scope", scope="{needed}"' in challenge


def test_no_key_makes_one_that_may_do_more(api: Api) -> None:
    everything = own_key(api)
    _, admin = made(api, scopes=["admin"])
    for path, body in (
        ("/v1/api-keys", {"scopes": ["read"]}),
        (f"/v1/api-keys/{everything}/rotate", {}),
    ):
        refused = api.anonymous.post(path, json=body, headers=admin)
        assert refused.status_code == 403
        assert "`read`" in refused.json()["detail"]
    heir = api.anonymous.post("/v1/api-keys", json={}, headers=admin)
    assert heir.json()["scopes"] == ["admin"]


def test_wrong_scopes_and_times_are_named(api: Api) -> None:
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    for body, field in (
        ({"scopes": ["root"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"expires_at": past}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
    ):
        response = api.client.post("/v1/api-keys", json=body)
        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == [field]


def test_an_expired_key_says_so(sql_api: Api) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    key_id, headers = made(sql_api, expires_at=end.isoformat())
    assert sql_api.anonymous.get("/v1/models", headers=headers).status_code == 200
    with sql_api.backend.database.session() as session:
        session.get_one(ApiKeyRecord, key_id).expires_at = datetime(2020, 1, 2, tzinfo=UTC)
    sql_api.backend.keys.forget(key_id)
    response = sql_api.anonymous.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert "expired at 2020-01-02T00:00:00Z" in response.json()["detail"]
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


def test_a_rotated_key_opens_until_the_grace_ends(sql_api: Api) -> None:
    end = datetime.now(UTC) + timedelta(days=10)
    key_id, old = made(sql_api, name="ci", scopes=["read"], expires_at=end.isoformat())
    path = f"/v1/api-keys/{key_id}/rotate"
    response = sql_api.client.post(path, json={"grace_seconds": 3600})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    new = response.json()
    assert (new["name"], new["scopes"]) == ("ci", ["read"])
    assert abs(datetime.fromisoformat(new["expires_at"]) - end) < timedelta(minutes=1)
    both = [old, {"Authorization": f"Bearer {new['secret']}"}]
    assert [sql_api.anonymous.get("/v1/models", headers=one).status_code for one in both] == [
        200
    ] * 2
    record = sql_api.client.get(f"/v1/api-keys/{key_id}").json()
    assert record["replaced_by_id"] == new["id"]
    left = datetime.fromisoformat(record["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=55) < left <= timedelta(hours=1)
    again = sql_api.client.post(path, json={})
    assert again.status_code == 409
    assert new["id"] in again.json()["hint"]
    at_once = sql_api.client.post(f"/v1/api-keys/{new['id']}/rotate", json={"grace_seconds": 0})
    assert at_once.status_code == 201
    assert sql_api.anonymous.get("/v1/models", headers=both[1]).status_code == 401
    assert sql_api.stranger.post(path, json={}).status_code == 404


def test_the_last_admin_key_goes_only_by_force(sql_api: Api) -> None:
    last = own_key(sql_api)
    made(sql_api, scopes=["read", "write"])
    refused = sql_api.client.delete(f"/v1/api-keys/{last}")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/last-admin-key"
    other, _ = made(sql_api, scopes=["admin"])
    assert sql_api.client.delete(f"/v1/api-keys/{other}").status_code == 204
    assert sql_api.client.delete(f"/v1/api-keys/{last}").status_code == 409
    assert sql_api.client.delete(f"/v1/api-keys/{last}?force=true").status_code == 204
    assert sql_api.client.get("/v1/models").status_code == 401


def test_keys_of_the_first_version_still_open(api: Api) -> None:
    secret = "sk_" + secrets.token_urlsafe(32)
    with api.backend.database.session() as session:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        session.add(ApiKeyRecord(tenant_id=api.tenant_id, prefix=secret[:10], secret_sha256=digest))
    headers = {"Authorization": f"Bearer {secret}"}
    assert api.anonymous.get("/v1/api-keys", headers=headers).status_code == 200


def test_a_strangers_body_is_not_read(api: Api) -> None:
    """Neither parsed, which would be 400, nor measured."""
    for headers in ({}, {"Authorization": "Bearer sk_wrong"}):
        response = api.anonymous.post(
            "/v1/jobs", content=b"{" * 100, headers={**headers, "Content-Type": "application/json"}
        )
        assert response.status_code == 401
    assert api.anonymous.get("/v1/nothing/here").status_code == 401


def test_a_verified_key_needs_no_database_for_a_while(api: Api) -> None:
    assert api.client.get("/v1/methods").status_code == 200
    key_id = own_key(api)
    with api.backend.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO gone")
    assert api.client.get("/v1/methods").status_code == 200
    api.backend.keys.forget(key_id)
    assert api.client.get("/v1/methods").status_code == 503


def test_the_cache_is_bounded_and_forgets() -> None:
    now = datetime.now(UTC)
    clock = [0.0]
    cache = KeyCache(2.0, entries=3, clock=lambda: clock[0])
    for number in range(5):
        cache.put(bytes([number]), Caller("tnt", f"key_{number}"), None, cache.generation)
    assert len(cache) == 3
    assert cache.get(b"\0", now) is None
    found = cache.get(b"\4", now)
    assert found is not None
    assert found.key_id == "key_4"
    assert cache.get(b"\4", now) is not None
    before = cache.generation
    cache.forget("key_4")
    assert cache.get(b"\4", now) is None
    cache.put(b"\4", Caller("tnt", "key_4"), None, before)  # read before the change
    assert cache.get(b"\4", now) is None
    cache.put(b"\5", Caller("tnt", "key_5"), now + timedelta(seconds=1), cache.generation)
    assert cache.get(b"\5", now) is not None
    assert cache.get(b"\5", now + timedelta(seconds=1)) is None
    clock[0] = 2.0
    assert cache.get(b"\3", now) is None
    off = KeyCache(0.0)
    off.put(b"\1", Caller("tnt", "key"), None, off.generation)
    assert len(off) == 0


def test_only_the_hash_decides(api: Api) -> None:
    """The id in a secret leads to the row; the rest must fit it."""
    with api.backend.database.session() as session:
        record, secret = api_keys.create(session, tenant_id=api.tenant_id, name="")
        other, _ = api_keys.create(session, tenant_id=api.tenant_id, name="")
        assert api_keys.find(session, secret) is record
        record.secret_sha256 = other.secret_sha256[::-1]
        session.flush()
        assert api_keys.find(session, secret) is None
