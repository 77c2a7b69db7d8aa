"""A plain poll goes its own way and is answered as every other request for the job is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from persistence import api_keys
from service.jobs.poll_route import PollRoute
from tests.service.conftest import Api

_ITS_OWN = {"x-request-id", "ratelimit", "date"}
"""Headers that no two answers share."""


@pytest.fixture
def routes(api: Api) -> Iterator[tuple[Api, list[str]]]:
    """The application, and the paths that its short way has taken."""
    taken: list[str] = []
    [route] = [one for one in api.app.router.routes if isinstance(one, PollRoute)]
    assert api.app.router.routes[0] is route
    whole = route.handle

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        taken.append(scope["path"])
        await whole(scope, receive, send)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "handle", noted)
        yield api, taken


def job_of(api: Api, model_file: bytes, recipe: dict[str, Any]) -> str:
    model = api.client.post("/v1/models", content=model_file).json()
    made = api.client.post("/v1/jobs", json={"model_id": model["id"], "recipe": recipe})
    return f"/v1/jobs/{made.json()['id']}"


def unlike(one: Any, other: Any) -> list[str]:
    """What differs between two answers."""
    bodies = [dict(answer.json()) if answer.content else {} for answer in (one, other)]
    for body in bodies:
        body.pop("request_id", None)
    found = [] if bodies[0] == bodies[1] else ["body"]
    if one.status_code != other.status_code:
        found.append("status")
    names = (one.headers.keys() | other.headers.keys()) - _ITS_OWN
    return found + [name for name in names if one.headers.get(name) != other.headers.get(name)]


def test_both_ways_give_the_same_answer(
    routes: tuple[Api, list[str]], model_file: bytes, recipe: dict[str, Any]
) -> None:
    api, taken = routes
    path = job_of(api, model_file, recipe)
    with api.backend.database.session() as session:
        _, secret = api_keys.create(
            session, tenant_id=api.tenant_id, name="writer", scopes=["write"]
        )
    writer = TestClient(api.app, headers={"Authorization": f"Bearer {secret}"})
    writer.portal = api.client.portal
    tag = api.client.get(path).headers["ETag"]
    asked: list[tuple[TestClient, str, str, dict[str, str], int]] = [
        (api.client, "GET", path, {}, 200),
        (api.client, "GET", path, {"If-None-Match": tag}, 304),
        (api.client, "GET", path, {"If-None-Match": '"other"'}, 200),
        (api.client, "HEAD", path, {}, 200),
        (api.client, "HEAD", path, {"If-None-Match": tag}, 304),
        (api.stranger, "GET", path, {}, 404),
        (api.client, "GET", "/v1/jobs/job_none", {}, 404),
        (api.client, "GET", "/v1/jobs/job%20x%C3%A9", {}, 404),
        (api.anonymous, "GET", path, {}, 401),
        (writer, "GET", path, {}, 403),
    ]
    for client, method, where, headers, status in asked:
        expected = len(taken) + (status != 401)
        short = client.request(method, where, headers=headers)
        assert len(taken) == expected
        long = client.request(method, f"{where}?wait=0", headers=headers)
        assert len(taken) == expected, "a query goes the long way"
        assert short.status_code == status, short.text
        assert unlike(short, long) == [], (method, where, headers)


def test_other_requests_go_the_long_way(
    routes: tuple[Api, list[str]], model_file: bytes, recipe: dict[str, Any]
) -> None:
    api, taken = routes
    path = job_of(api, model_file, recipe)
    assert api.client.get("/v1/jobs").status_code == 200
    assert api.client.get("/v1/jobs/").status_code == 404
    assert api.client.get(f"{path}/events").status_code == 200
    assert api.client.get(f"{path}/").status_code == 404
    assert api.client.delete(path).status_code == 405
    assert api.client.post(f"{path}/cancel").status_code == 202
    assert taken == []
