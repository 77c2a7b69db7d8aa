"""`initial_model_id` of `POST /v1/jobs`: checked, kept, locked and protected from deletion."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from persistence.records import ModelRecord
from tests.service.conftest import Api, TinyNet, scripted

TRAINING = {"epochs": 1}
TICKET = {
    "stage": "prune",
    "allocation": {"amount": 0.5},
    "schedule": {"kind": "imp", "rounds": 1, "training": TRAINING},
}
INFO = {
    "arguments": [], "methods": ["forward"], "parameters": 1490, "buffers": 0,
    "dtypes": ["float32"], "layers": ["features.0", "classifier"], "torchscript_bytes": 1,
}  # fmt: skip


def upload(api: Api, content: bytes) -> str:
    response = api.client.post("/v1/models", content=content)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def inspected(api: Api, model_id: str, **info: Any) -> None:
    with api.backend.database.session() as session:
        model = session.get_one(ModelRecord, model_id)
        model.status, model.info = "ready", {**INFO, **info}


def bodies(api: Api, model_file: bytes, dataset_file: bytes) -> tuple[dict[str, Any], str]:
    """A request with a ticket and without initial weights, and another model for those."""
    torch.manual_seed(7)
    dataset = api.client.post("/v1/datasets", content=dataset_file).json()["id"]
    body = {
        "model_id": upload(api, model_file),
        "dataset_id": dataset,
        "recipe": {"stages": [TICKET]},
    }
    return body, upload(api, scripted(TinyNet()))


def refused(api: Api, body: dict[str, Any]) -> dict[str, str]:
    response = api.client.post("/v1/jobs", json=body)
    assert response.status_code == 422, response.text
    return {error["field"]: error["message"] for error in response.json()["errors"]}


def test_the_job_names_its_initial_weights_and_keeps_them(
    sql_api: Api, model_file: bytes, dataset_file: bytes
) -> None:
    body, initial = bodies(sql_api, model_file, dataset_file)
    body["initial_model_id"] = initial
    response = sql_api.client.post("/v1/jobs", json=body)
    assert response.status_code == 202, response.text
    job = response.json()
    assert job["initial_model_id"] == initial
    assert sql_api.client.get(f"/v1/jobs/{job['id']}").json()["initial_model_id"] == initial

    # As the model itself, it cannot be deleted while the job needs it.
    held = sql_api.client.delete(f"/v1/models/{initial}")
    assert held.status_code == 409
    assert job["id"] in held.json()["detail"]
    sql_api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert sql_api.client.delete(f"/v1/models/{initial}").status_code == 204
    assert sql_api.client.get(f"/v1/jobs/{job['id']}").json()["initial_model_id"] == initial

    gone = sql_api.client.post("/v1/jobs", json=body)
    assert gone.status_code == 404
    assert initial in gone.json()["detail"]


def test_an_idempotency_key_covers_the_initial_weights(
    sql_api: Api, model_file: bytes, dataset_file: bytes
) -> None:
    body, initial = bodies(sql_api, model_file, dataset_file)
    key = {"Idempotency-Key": "ticket"}
    with_initial = {**body, "initial_model_id": initial}
    made = sql_api.client.post("/v1/jobs", json=with_initial, headers=key)
    again = sql_api.client.post("/v1/jobs", json=with_initial, headers=key)
    assert again.json()["id"] == made.json()["id"]
    other = sql_api.client.post("/v1/jobs", json=body, headers=key)
    assert (other.status_code, other.json()["type"]) == (409, "/problems/idempotency-key-reused")


def test_another_tenants_model_is_not_there(
    api: Api, model_file: bytes, dataset_file: bytes
) -> None:
    body, _ = bodies(api, model_file, dataset_file)
    torch.manual_seed(8)
    theirs = api.stranger.post("/v1/models", content=scripted(TinyNet())).json()["id"]
    response = api.client.post("/v1/jobs", json={**body, "initial_model_id": theirs})
    assert (response.status_code, response.json()["type"]) == (404, "/problems/model-not-found")


def test_recipes_that_have_no_use_for_initial_weights(
    api: Api, model_file: bytes, dataset_file: bytes
) -> None:
    body, initial = bodies(api, model_file, dataset_file)
    body["initial_model_id"] = initial
    plain = {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}}
    body["recipe"] = {"stages": [plain]}
    fields = refused(api, body)
    assert list(fields) == ["recipe.stages"]
    assert "`imp`, `imp_rewind`, `supermask`" in fields["recipe.stages"]

    body["recipe"] = {"stages": [{"stage": "prune", "allocation": {"amount": 0.5}}, TICKET]}
    fields = refused(api, body)
    assert list(fields) == ["recipe.stages.1.schedule"]
    assert "`stages.0` has made the model smaller" in fields["recipe.stages.1.schedule"]

    body["recipe"] = {"stages": [plain, TICKET]}
    assert api.client.post("/v1/jobs", json=body).status_code == 202


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"layers": ["features.0"]}, "lacks the layer `classifier`"),
        ({"layers": ["features.0", "classifier", "head"]}, "lacks the layer `head`"),
        ({"parameters": 1491}, "has 1,491 parameters"),
    ],
)
def test_models_of_another_structure(
    api: Api, model_file: bytes, dataset_file: bytes, difference: dict[str, Any], message: str
) -> None:
    body, initial = bodies(api, model_file, dataset_file)
    inspected(api, body["model_id"])
    inspected(api, initial)
    body["initial_model_id"] = initial
    assert api.client.post("/v1/jobs", json=body).status_code == 202
    inspected(api, initial, **difference)
    fields = refused(api, body)
    assert list(fields) == ["initial_model_id"]
    assert message in fields["initial_model_id"]


def test_the_model_itself_and_a_rejected_one(
    api: Api, model_file: bytes, dataset_file: bytes
) -> None:
    body, initial = bodies(api, model_file, dataset_file)
    fields = refused(api, {**body, "initial_model_id": body["model_id"]})
    assert "It is the model itself" in fields["initial_model_id"]
    with api.backend.database.session() as session:
        record = session.get_one(ModelRecord, initial)
        record.status, record.error = "rejected", {"title": "no `forward`", "hint": "script it"}
    response = api.client.post("/v1/jobs", json={**body, "initial_model_id": initial})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/model-rejected")
    assert initial in response.json()["detail"]
