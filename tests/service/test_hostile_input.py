"""Values that are legal where they are read and poison further down: refused, never a 500."""

from __future__ import annotations

from typing import Any

import pytest

from persistence import job_queue, models
from tests.service.conftest import Api


def test_a_nul_in_the_url(sql_api: Api) -> None:
    for path in (
        "/v1/models/%00",
        "/v1/models?name=%00",
        "/v1/jobs?model_id=a%00b",
        "/v1/jobs?metadata.team=%00",
        "/v1/jobs?metadata.te%00am=x",
        "/v1/jobs/job_x/metrics?name=%00",
    ):
        response = sql_api.client.get(path)
        assert response.status_code == 400, path
        assert "NUL" in response.json()["detail"], path


def test_a_nul_in_a_body(sql_api: Api, recipe: dict[str, Any]) -> None:
    recipe["stages"][0]["exclude"] = ["ok", "a\0b"]
    body = {
        "model_id": "mdl\0",
        "recipe": recipe,
        "name": "\0",
        "metadata": {"a": "\0", "b\0": "c"},
    }
    response = sql_api.client.post("/v1/jobs", json=body)
    assert response.status_code == 422
    assert {error["field"] for error in response.json()["errors"]} == {
        "model_id",
        "name",
        "metadata",
        "metadata.a",
        "recipe.stages.0.exclude.1",
    }
    response = sql_api.client.post("/v1/api-keys", json={"name": "\0"})
    assert response.status_code == 422


EDGES = {
    "/v1/jobs/{job}/events?after=99999999999999999999999": 422,
    "/v1/jobs/{job}/metrics?after=2147483648": 422,
    "/v1/jobs/{job}/metrics?after=2147483647": 200,
    "/v1/jobs/{job}?wait=nan": 422,
    "/v1/jobs?metadata.=x": 200,
    "/v1/jobs?metadata.a%22b'%24%5B0%5D=x": 200,
    "/v1/jobs?cursor=job_zzzzzzzzzzzzzzzzzzzzzzzzzz": 200,
    "/v1/models/%F0%9F%8C%B3": 404,
    "/v1/models/..%2f..%2fetc%2fpasswd": 404,
}


def test_numbers_and_names_at_the_edge(sql_api: Api) -> None:
    with sql_api.backend.database.session() as session:
        model = models.add(session, tenant_id=sql_api.tenant_id, name="", sha256="0" * 64, size=1)
        job = job_queue.enqueue(
            session, tenant_id=sql_api.tenant_id, type="plan", model_id=model.id, queue="cpu"
        )
    for path, status in EDGES.items():
        response = sql_api.client.get(path.replace("{job}", job.id))
        assert response.status_code == status, (path, response.text)


@pytest.mark.parametrize(
    "header", ["bytes=" + "9" * 5000 + "-", "bytes=0-" + "9" * 5000, "bytes=²-"]
)
def test_ranges_beyond_reason_are_ignored(api: Api, model_copy: bytes, header: str) -> None:
    model = api.client.post("/v1/models", content=model_copy).json()
    response = api.client.get(
        f"/v1/models/{model['id']}/content", headers={"Range": header.encode()}
    )
    assert response.status_code == 200
    assert response.content == model_copy


def test_a_lone_surrogate_in_a_body(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    response = api.client.post("/v1/api-keys", content=b'{"name": "\\ud800"}', headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "name"


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_deeply_nested_body(api: Api, depth: int) -> None:
    body = b'{"recipe": ' + b"[" * depth + b"]" * depth + b"}"
    response = api.client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 422)
    assert response.json()["hint"]


def test_a_loss_that_is_no_number_is_shown_as_null(api: Api, model_file: bytes) -> None:
    model = api.client.post("/v1/models", content=model_file).json()
    [job] = api.client.get(f"/v1/jobs?model_id={model['id']}").json()["data"]
    with api.backend.database.session() as session:
        job_queue.append_event(session, job["id"], "metric", {"value": float("nan")})
    events = api.client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert events[-1]["data"] == {"value": None}
    stream = api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert stream.status_code == 202
    text = api.client.get(
        f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}
    ).text
    assert "NaN" not in text
