"""Every operation of the API description against every kind of key.

The operations come from `openapi.yaml`, so one that is added tomorrow is held against all of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from persistence import api_keys, key_secrets, tenants
from persistence.identifiers import new_id
from persistence.records import SCOPES, ApiKeyRecord
from persistence.settings import Settings
from service import openapi
from tests.service.access.seeds import filled, key_of, seed
from tests.service.conftest import Api, serve

PUBLIC = {"GET /healthz", "GET /readyz"}
"""All that may be had without a key, besides the pages below."""
PUBLIC_PAGES = ("/openapi.json", "/docs", "/redoc")
Operation = tuple[str, str, dict[str, Any]]


def operations() -> list[Operation]:
    paths = yaml.safe_load(openapi.FILE.read_text())["paths"]
    return [
        (method.upper(), path, described)
        for path, methods in paths.items()
        for method, described in methods.items()
    ]


GUARDED = [one for one in operations() if f"{one[0]} {one[1]}" not in PUBLIC]


@pytest.fixture
def api(api_settings: Settings) -> Iterator[Api]:
    unlimited = {"failed_keys_per_minute": 0, "rate_limit_per_minute": 0}
    yield from serve(api_settings.model_copy(update=unlimited))


def send(api: Api, operation: Operation, seeds: dict[str, str], headers: Any) -> httpx.Response:
    """The request with the least of a body that its description takes."""
    method, path, described = operation
    content = described.get("requestBody", {}).get("content", {})
    options: dict[str, Any] = {}
    if "application/json" in content:
        options["json"] = {}
    elif content:
        options["content"] = b"x"
    found: httpx.Response = api.anonymous.request(
        method, filled(path, seeds), headers=headers, **options
    )
    return found


def test_what_is_public_is_a_short_list(api: Api) -> None:
    assert {f"{m} {p}" for m, p, d in operations() if "security" not in d} == PUBLIC
    assert len(GUARDED) > 30
    for path in PUBLIC_PAGES:
        assert api.anonymous.get(path).status_code == 200


def test_no_operation_opens_for_a_key_that_is_none(api: Api, model_file: bytes) -> None:
    seeds = seed(api, api.tenant_id, model_file)
    revoked_id, revoked = key_of(api, api.tenant_id, list(SCOPES))
    expired_id, expired = key_of(api, api.tenant_id, list(SCOPES))
    with api.backend.database.session() as session:
        api_keys.revoke(session.get_one(ApiKeyRecord, revoked_id))
        session.get_one(ApiKeyRecord, expired_id).expires_at = datetime(2020, 1, 1, tzinfo=UTC)
    keys: dict[str, tuple[dict[str, str], str]] = {
        "none": ({}, "no API key"),
        "not a bearer": ({"Authorization": "Basic dTpw"}, "no API key"),
        "malformed": ({"Authorization": "Bearer sk_wrong"}, "unknown or revoked"),
        "first form": (
            {"Authorization": f"Bearer sk_{secrets.token_urlsafe(32)}"}, "unknown or revoked",
        ),
        "unknown": (
            {"Authorization": f"Bearer {key_secrets.make(new_id('key'))}"}, "unknown or revoked",
        ),
        "another's id": (
            {"Authorization": f"Bearer {key_secrets.make(revoked_id)}"}, "unknown or revoked",
        ),
        "revoked": (revoked, "unknown or revoked"),
        "expired": (expired, "expired at 2020-01-01T00:00:00Z"),
    }  # fmt: skip
    for operation in GUARDED:
        for kind, (headers, words) in keys.items():
            response = send(api, operation, seeds, headers)
            at = (operation[:2], kind)
            assert response.status_code == 401, at
            assert words in response.json()["detail"], at
            assert response.headers["WWW-Authenticate"].startswith("Bearer"), at


def test_every_operation_needs_its_scope_and_tells_it(api: Api, model_file: bytes) -> None:
    seeds = seed(api, api.tenant_id, model_file)
    _, lacking = {}, {}
    for scope in SCOPES:
        others = [one for one in SCOPES if one != scope]
        lacking[scope] = key_of(api, api.tenant_id, others)[1]
    for operation in GUARDED:
        needed = operation[2]["x-required-scope"]
        assert operation[2]["security"] == [{"ApiKey": [needed]}]
        response = send(api, operation, seeds, lacking[needed])
        assert response.status_code == 403, operation[:2]
        assert f"scope `{needed}`" in response.json()["detail"], operation[:2]
        assert f'scope="{needed}"' in response.headers["WWW-Authenticate"], operation[:2]
    administrative = {p.split("/")[2] for _, p, d in GUARDED if d["x-required-scope"] == "admin"}
    assert administrative == {"api-keys", "webhooks", "audit-log"}


def test_another_tenants_objects_are_not_there(api: Api, model_file: bytes) -> None:
    """Every path with an id, asked by a tenant with all scopes and objects of its own."""
    theirs = seed(api, api.tenant_id, model_file)
    with api.backend.database.session() as session:
        stranger = tenants.get_or_create(session, "stranger").id
    own = seed(api, stranger, model_file[:-1])
    headers = {"Authorization": api.stranger.headers["Authorization"]}
    checked = 0
    for operation in GUARDED:
        method, path, _ = operation
        if "{" not in path:
            continue
        response = send(api, operation, theirs, headers)
        assert response.status_code == 404, (method, path, response.text)
        assert response.json()["type"].endswith("-not-found")
        assert "secret " not in response.text  # as in all names of the seeds
        if "{delivery_id}" in path:  # an own webhook does not lead to another's delivery
            mixed = send(api, operation, {**own, "delivery_id": theirs["delivery_id"]}, headers)
            assert mixed.status_code == 404, (method, path)
        checked += 1
    assert checked > 20


def test_lists_hold_nothing_of_another_tenant(api: Api, model_file: bytes) -> None:
    theirs = seed(api, api.tenant_id, model_file)
    ids = {one for name, one in theirs.items() if name != "number"}
    headers = {"Authorization": api.stranger.headers["Authorization"]}
    for method, path, _ in GUARDED:
        if method != "GET" or "{" in path:
            continue
        for query in ("", *(f"?{name}={one}" for name, one in theirs.items())):
            response = api.anonymous.get(path + query, headers=headers)
            assert response.status_code in (200, 422), (path, query)
            assert not any(one in response.text.replace(query[1:], "") for one in ids), path
