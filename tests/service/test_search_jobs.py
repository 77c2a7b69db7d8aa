"""Searches at the door: what is let in as one, what is refused, and how trials are listed."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.numpy import save

from persistence import job_queue
from persistence.job_queue import trials
from persistence.records import JobRecord
from tests.service.conftest import Api, dataset_arrays

AMOUNT = "stages.0.allocation.amount"
PRUNE = {"stage": "prune", "allocation": {"amount": 0.5}}


def search(**changes: Any) -> dict[str, Any]:
    return {"space": {AMOUNT: {"low": 0.2, "high": 0.8}}, "objectives": ["macs"]} | changes


@pytest.fixture
def model_id(api: Api, model_file: bytes) -> str:
    return str(api.client.post("/v1/models", content=model_file).json()["id"])


def post(api: Api, model_id: str = "mdl_x", *, stages: Any = None, **fields: Any) -> Any:
    recipe = {
        "inputs": [{"shape": [1, 1, 8, 8]}],
        "stages": stages or [PRUNE],
        "search": search(**fields.pop("search", {})),
    }
    return api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe} | fields)


def refused(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.text
    assert response.json()["hint"]
    return {error["field"]: error["message"] for error in response.json()["errors"]}


@pytest.mark.parametrize("stated", [{}, {"type": "search"}])
def test_a_recipe_with_a_search_makes_a_search(
    api: Api, model_id: str, stated: dict[str, str]
) -> None:
    response = post(api, model_id, **stated)
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["type"], job["status"], job["parent_id"]) == ("search", "queued", None)
    # What was left out of the stages is still left out; the search shows its defaults.
    assert job["recipe"]["stages"] == [PRUNE]
    assert (job["recipe"]["search"]["trials"], job["recipe"]["search"]["sampler"]) == (20, "tpe")
    [listed] = api.client.get("/v1/jobs?type=search").json()["data"]
    assert listed["id"] == job["id"]
    early = api.client.get(f"/v1/jobs/{job['id']}/report")
    assert (early.status_code, early.json()["type"]) == (409, "/problems/job-unfinished")


@pytest.mark.parametrize("type", ["compress", "plan", "score"])
def test_a_type_that_does_not_fit(api: Api, type: str) -> None:
    assert "this one has a `search`" in refused(post(api, type=type))["type"]


def test_a_search_without_a_space(api: Api) -> None:
    body = {"model_id": "mdl_x", "type": "search", "recipe": {"stages": [PRUNE]}}
    message = refused(api.client.post("/v1/jobs", json=body))["type"]
    assert "needs a recipe with a `search`" in message


@pytest.mark.parametrize(
    ("space", "field", "words"),
    [
        ({AMOUNT: {"low": 0.2, "high": 1.0}}, AMOUNT, "Input should be less than 1"),
        ({AMOUNT: {"low": 0.8, "high": 0.2}}, AMOUNT, "`low` must be below `high`"),
        ({AMOUNT: {"low": 0.2, "hihg": 0.8}}, f"{AMOUNT}.hihg", "Did you mean `high`?"),
        ({"stages.0.allocation.amout": [0.5]}, "stages.0.allocation.amout", "no such field"),
        ({"stages.0.criterion": ["l1_norm", "x"]}, "stages.0.criterion", "Input should be"),
    ],
)
def test_a_wrong_space(api: Api, space: Any, field: str, words: str) -> None:
    found = refused(post(api, search={"space": space}))
    assert words in found[f"recipe.search.space.{field}"], found


def test_what_only_some_values_need(api: Api, model_id: str) -> None:
    space = {"stages.0.criterion": ["l1_norm", "taylor"]}
    message = refused(post(api, model_id, search={"space": space}))["dataset_id"]
    assert "With `stages.0.criterion: taylor`: `recipe.stages.0.criterion` needs a " in message
    arrays = {n: array for n, array in dataset_arrays().items() if not n.startswith("train")}
    dataset = api.client.post("/v1/datasets", content=save(arrays)).json()["id"]
    response = post(api, model_id, search={"space": space}, dataset_id=dataset)
    assert "needs `train/" in refused(response)["dataset_id"]


def test_objectives_that_need_labels(api: Api, model_id: str) -> None:
    message = refused(post(api, model_id, search={"objectives": ["accuracy"]}))["dataset_id"]
    assert "`recipe.search.objectives` needs a dataset" in message
    arrays = {n: array for n, array in dataset_arrays().items() if "/targets/" not in n}
    dataset = api.client.post("/v1/datasets", content=save(arrays)).json()["id"]
    response = post(api, model_id, search={"objectives": ["loss"]}, dataset_id=dataset)
    assert "needs `validation/targets/0`" in refused(response)["dataset_id"]


def test_a_pattern_that_matches_no_layer(api: Api, model_id: str) -> None:
    with api.backend.database.session() as session:
        [job] = api.client.get(f"/v1/jobs?type=inspect&model_id={model_id}").json()["data"]
        held = job_queue.claim(session, job["id"], owner="test", lease_seconds=30)
        assert held is not None
        info = {"arguments": [], "methods": ["forward"], "parameters": 1, "buffers": 0,
            "dtypes": ["float32"], "layers": ["features.0", "classifier"],
            "torchscript_bytes": 9}  # fmt: skip
        job_queue.finish(session, held, "succeeded", result=info)
    layers = "stages.0.allocation.layers"
    space = {f"{layers}.feat*.0": [0.5], f"{layers}.head*": [0.25, 0.5]}
    found = refused(post(api, model_id, search={"space": space}))
    assert len(found) == 1
    [(field, message)] = found.items()
    assert field.startswith("recipe.search.space.stages.0.allocation.layers.")
    assert "`head*` matches no layer" in message


def test_trials_are_listed_with_their_search_only(api: Api, model_id: str) -> None:
    job = post(api, model_id).json()
    with api.backend.database.session() as session:
        record = session.get_one(JobRecord, job["id"])
        trial = trials.start_trial(
            session, record, 0, recipe={"stages": [PRUNE]}, parameters={AMOUNT: 0.5}, sampler={}
        )
        trials.see_end(session, record, trial, {"state": "succeeded", "values": {"macs": 7}})
    shown = api.client.get("/v1/jobs").json()["data"]
    assert trial.id not in [one["id"] for one in shown]
    [child] = api.client.get(f"/v1/jobs?parent_id={job['id']}").json()["data"]
    assert (child["id"], child["parent_id"], child["type"]) == (trial.id, job["id"], "compress")
    assert child["trial"] == {
        "number": 0, "parameters": {AMOUNT: 0.5}, "state": "succeeded", "values": {"macs": 7},
    }  # fmt: skip
    assert api.client.get("/v1/jobs?parent_id=job_unknown").json()["data"] == []
    assert api.client.get(f"/v1/jobs/{trial.id}").json()["parent_id"] == job["id"]


def test_a_model_in_a_search_stays(api: Api, model_id: str) -> None:
    job = post(api, model_id).json()
    assert api.client.delete(f"/v1/models/{model_id}").status_code == 409
    canceled = api.client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert canceled["status"] == "canceled"
