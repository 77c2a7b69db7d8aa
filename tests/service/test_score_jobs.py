"""Score jobs at the door: what is let in as one, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from persistence import job_queue
from tests.service.conftest import Api, dataset_arrays

INPUTS = [{"shape": [1, 1, 8, 8]}]
PRUNE = {"stage": "prune", "allocation": {"amount": 0.5}}


def scan(**changes: Any) -> dict[str, Any]:
    return {"stage": "score"} | changes


@pytest.fixture
def model_id(api: Api, model_file: bytes) -> str:
    return str(api.client.post("/v1/models", content=model_file).json()["id"])


def post(api: Api, *stages: Any, model_id: str = "mdl_x", **fields: Any) -> Any:
    recipe = {"inputs": INPUTS, "stages": list(stages)} | fields.pop("recipe", {})
    return api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe} | fields)


def refused(response: Any) -> dict[str, str]:
    assert response.status_code == 422, response.text
    assert response.json()["hint"]
    return {error["field"]: error["message"] for error in response.json()["errors"]}


@pytest.mark.parametrize("stated", [{}, {"type": "score"}])
def test_a_recipe_of_score_stages_makes_a_score_job(
    api: Api, model_id: str, stated: dict[str, str]
) -> None:
    response = post(api, scan(), scan(granularity="element"), model_id=model_id, **stated)
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["type"], job["status"]) == ("score", "queued")
    assert job["recipe"]["stages"][1]["ratios"] == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert [one["id"] for one in api.client.get("/v1/jobs?type=score").json()["data"]] == [
        job["id"]
    ]
    early = api.client.get(f"/v1/jobs/{job['id']}/report")
    assert (early.status_code, early.json()["type"]) == (409, "/problems/job-unfinished")
    # Written out in full it is the same recipe.
    again = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": job["recipe"]})
    assert again.json()["type"] == "score"


def test_a_recipe_that_prunes_is_still_compressed(api: Api, model_id: str) -> None:
    assert post(api, PRUNE, model_id=model_id).json()["type"] == "compress"


@pytest.mark.parametrize(
    ("stages", "type", "words"),
    [
        ([PRUNE], "score", "all `stage: score`"),
        ([scan()], "compress", "this one only scores"),
        ([scan()], "plan", "needs a recipe that prunes"),
    ],
)
def test_a_type_that_does_not_fit_the_recipe(
    api: Api, stages: list[Any], type: str, words: str
) -> None:
    assert words in refused(post(api, *stages, type=type))["type"]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"ratios": [0.5, 1.0]}, "ratios.1", "less than 1"),
        ({"ratios": [0]}, "ratios.0", "greater than 0"),
        ({"ratios": []}, "ratios", "at least 1"),
        ({"ratios": [0.5, 0.25]}, "", "`ratios` must rise: 0.25 follows 0.5"),
        ({"ratios": [0.5, 0.5]}, "", "`ratios` must rise"),
        ({"measure": "latency"}, "measure", "'accuracy'"),
        ({"granularity": "layer"}, "granularity", "'channel'"),
        ({"granularity": "element", "criterion": "bn_scale"}, "", "BatchNorm scales channels"),
        ({"granularity": "element", "criterion": "large_final"}, "", "initial ones"),
        ({"criterion": "output_effect"}, "", "judges whole layers"),
        ({"criterion": "taylor", "aggregate": "max"}, "", "`aggregate` must be `sum`"),
        ({"scoring": {"samples": 5}}, "", "looks at no samples"),
        ({"samples": 0}, "samples", "greater than or equal to 1"),
        ({"split": "test"}, "split", "'validation'"),
        ({"ratio": [0.5]}, "ratio", "Did you mean `ratios`?"),
    ],
)
def test_a_wrong_field(api: Api, changes: dict[str, Any], field: str, words: str) -> None:
    path = ".".join(part for part in ("recipe.stages.0", field) if part)
    assert words in refused(post(api, scan(**changes)))[path]


@pytest.mark.parametrize("stages", [[scan(), PRUNE], [PRUNE, scan()], [scan(), PRUNE, scan()]])
def test_a_scan_beside_other_stages(api: Api, stages: list[Any]) -> None:
    message = refused(post(api, *stages))["recipe"]
    assert f"`stages.{stages.index(PRUNE)}` changes the model" in message
    assert "a recipe of its own" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("constraints", {"min_speedup": 1.5}),
        ("measure", {"runs": 5}),
        ("baselines", [{"kind": "scratch_e", "training": {"epochs": 1}}]),
    ],
)
def test_fields_that_speak_of_a_compressed_model(api: Api, name: str, value: Any) -> None:
    message = refused(post(api, scan(), recipe={name: value}))["recipe"]
    assert f"`{name}` speaks of a compressed model" in message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"measure": "accuracy"}, "measure"),
        ({"measure": "loss"}, "measure"),
        ({"criterion": "wanda"}, "criterion"),
        ({"samples": 10}, "samples"),
        ({"split": "train"}, "split"),
    ],
)
def test_what_needs_a_dataset(api: Api, model_id: str, changes: dict[str, Any], field: str) -> None:
    message = refused(post(api, scan(**changes), model_id=model_id))["dataset_id"]
    assert f"`recipe.stages.0.{field}` needs a dataset" in message


@pytest.mark.parametrize(
    ("changes", "missing", "field"),
    [
        ({"measure": "accuracy"}, "validation", "measure"),
        ({"measure": "loss", "split": "train"}, "train", "measure"),
        ({"criterion": "snip"}, "train", "criterion"),
        ({}, "validation", "split"),
        ({"criterion": "wanda"}, "train", "criterion"),
    ],
)
def test_what_a_dataset_must_have(
    api: Api, model_id: str, changes: dict[str, Any], missing: str, field: str
) -> None:
    arrays = {n: array for n, array in dataset_arrays().items() if not n.startswith(missing)}
    dataset = api.client.post("/v1/datasets", content=save(arrays)).json()["id"]
    response = post(api, scan(**changes), model_id=model_id, dataset_id=dataset)
    assert f"`recipe.stages.0.{field}` needs `{missing}/" in refused(response)["dataset_id"]
    whole = api.client.post("/v1/datasets", content=save(dataset_arrays())).json()["id"]
    assert post(api, scan(**changes), model_id=model_id, dataset_id=whole).status_code == 202


@pytest.mark.parametrize("split", ["validation", "train"])
def test_accuracy_without_labels(api: Api, model_id: str, split: str) -> None:
    arrays = {n: array for n, array in dataset_arrays().items() if "/targets/" not in n}
    dataset = api.client.post("/v1/datasets", content=save(arrays)).json()["id"]
    labelled = scan(measure="accuracy", split=split)
    response = post(api, labelled, model_id=model_id, dataset_id=dataset)
    message = refused(response)["dataset_id"]
    assert f"`recipe.stages.0.measure` needs `{split}/targets/0`" in message
    drift = post(api, scan(split=split), model_id=model_id, dataset_id=dataset)
    assert drift.status_code == 202


def test_targets_must_be_classes(api: Api, model_id: str) -> None:
    arrays = dataset_arrays() | {"validation/targets/0": np.zeros(4, np.float32)}
    dataset = api.client.post("/v1/datasets", content=save(arrays)).json()["id"]
    response = post(api, scan(measure="accuracy"), model_id=model_id, dataset_id=dataset)
    assert "class indices" in refused(response)["dataset_id"]


def test_a_pattern_that_matches_nothing(api: Api, model_id: str) -> None:
    with api.backend.database.session() as session:
        [job] = api.client.get(f"/v1/jobs?type=inspect&model_id={model_id}").json()["data"]
        held = job_queue.claim(session, job["id"], owner="test", lease_seconds=30)
        assert held is not None
        info = {"arguments": [], "methods": ["forward"], "parameters": 1, "buffers": 0,
            "dtypes": ["float32"], "layers": ["features.0", "classifier"],
            "torchscript_bytes": 9}  # fmt: skip
        job_queue.finish(session, held, "succeeded", result=info)
    faults = refused(post(api, scan(exclude=["head*"]), model_id=model_id))
    assert "`features.0`" in faults["recipe.stages.0.exclude.0"]
