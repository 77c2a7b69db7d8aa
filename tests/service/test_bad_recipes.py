"""Bad recipes and jobs: each names the field by its path and says what would be valid."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from persistence.records import ModelRecord
from tests.service.conftest import Api, dataset_arrays

RECIPE: dict[str, Any] = {
    "inputs": [{"shape": [1, 1, 8, 8]}],
    "stages": [
        {
            "stage": "prune",
            "allocation": {"scope": "global", "amount": 0.5},
            "schedule": {"kind": "iterative", "rounds": 4, "finetune": {"epochs": 1}},
            "exclude": ["fc3"],
        },
        {"stage": "finetune", "optimizer": {"kind": "sgd"}, "distillation": {"alpha": 0.5}},
    ],
}


QUANTIZE: dict[str, Any] = {"stage": "quantize", "scheme": "weight_only"}
NESTED: Any = {"shape": [1]}
for _ in range(5):
    NESTED = {"list": [NESTED]}


def broken(path: str, value: Any) -> dict[str, Any]:
    """The recipe with one field set, or taken out by `...`."""
    recipe = copy.deepcopy(RECIPE)
    here: Any = recipe
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return recipe


@pytest.mark.parametrize(
    ("path", "value", "field", "words"),
    [
        ("stages.0.allocation.amount", 1.5, None, "less than 1"),
        ("stages.0.allocation.amount", 0, None, "greater than 0"),
        ("stages.0.allocation.amount", "half", None, "valid number"),
        ("stages.0.allocation.amount", ..., "stages.0.allocation", "exactly one of"),
        ("stages.0.allocation", ..., None, "required"),
        ("stages.0.allocation", {"layers": {"fc*": 1.0}}, "stages.0.allocation.layers.fc*", "less"),
        ("stages.0.allocation", {"threshold": 0.1, "amount": 0.5}, None, "exactly one of"),
        ("stages.0.allocation", {"quality": 0.8}, "stages.0", "needs granularity `element`"),
        ("stages.0.allocation.distribution", "erdos_renyi", "stages.0.allocation", "leave `scope`"),
        ("stages.0.tournament", {}, "stages.0", "of no use to `criterion: l1_norm`"),
        ("stages.0.criterion", "tournament ", "stages.0.criterion", "'tournament'"),
        ("stages.0.remove_dead", True, "stages.0", "follows the masking of single weights"),
        ("stages.0.n", 2, "stages.0", "need granularity `n_m`"),
        (
            "stages.0",
            {"stage": "prune", "granularity": "n_m", "n": 4, "m": 4},
            None,
            "`n` must be below `m`",
        ),
        ("stages.0", {"stage": "prune", "granularity": "n_m"}, None, "`n: 2, m: 4`"),
        ("stages.0.alocation", {}, None, "Did you mean `allocation`?"),
        ("stages.0.schedule.finetune.epoch", 1, None, "Did you mean `epochs`?"),
        ("stages.1.optimizer.momentumm", 1, None, "`momentum`"),
        ("stage", [], None, "Did you mean `stages`?"),
        ("stages.0.criterion", "l3_norm", None, "'l1_norm'"),
        ("stages.1.precision", "int8", None, "'bf16'"),
        (
            "stages.0.schedule",
            {"kind": "imp", "training": {"optimizer": {"lr": "auto"}}},
            "stages.0",
            "must all run at one rate",
        ),
        ("stages.1", {"stage": "recalibrate", "batch_size": 1}, "stages.1.batch_size", "to 2"),
        ("stages.1.distillation.alpha", 1.5, None, "equal to 1"),
        ("stages.1.distillation.temperature", 0, None, "greater than 0"),
        ("stages.1.distillation.temprature", 2, None, "Did you mean `temperature`?"),
        ("stages.0.criterion", "output_effect", "stages.0", "judges whole layers"),
        ("stages.0.stage", "trim", "stages.0.stage", "'prune', 'finetune'"),
        ("stages.0.stage", ..., "stages.0.stage", "required"),
        ("stages.0.schedule.kind", "cubic", "stages.0.schedule.kind", "'one_shot', 'iterative'"),
        ("stages.0.schedule.rounds", 1, None, "greater than or equal to 2"),
        ("stages.0.schedule", {"kind": "rigl"}, "stages.0", "must be `element`"),
        ("stages.0.schedule", {"kind": "agp", "every_steps": 5}, "stages.0", "own"),
        ("stages.0.criterion", "large_final", "stages.0", "needs `granularity: element`"),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "n_m",
                "n": 2,
                "m": 4,
                "schedule": {"kind": "imp"},
            },
            "stages.0",
            "rewinds single weights",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "allocation": {"amount": 0.5},
                "schedule": {"kind": "imp"},
                "remove_dead": True,
            },
            "stages.0",
            "original shapes",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "allocation": {"layers": {"fc*": 0.5}},
                "schedule": {"kind": "supermask", "mask": "learned"},
            },
            "stages.0",
            "one share of kept weights",
        ),
        (
            "stages.0.schedule",
            {"kind": "supermask", "mask": "learned", "training": {"freeze": ["fc1"]}},
            "stages.0",
            "trains no weights",
        ),
        ("stages.0.schedule", {"kind": "agp", "rounds": 101}, "stages.0", "at most 100"),
        ("stages.0.schedule", {"kind": "agp", "initial": 0.9}, "stages.0", "below the amount"),
        ("stages.0.schedule", {"kind": "lr_rewind"}, "stages.0.schedule.finetune", "required"),
        (
            "stages.0.schedule",
            {"kind": "lr_rewind", "rewind_to_epoch": 3, "finetune": {"epochs": 3}},
            "stages.0.schedule",
            "before the end of the training",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "element",
                "allocation": {"amount": 0.5},
                "schedule": {"kind": "agp", "rounds": 5, "finetune": {"epochs": 5}},
            },
            "stages.0",
            "more than 5 epochs",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "element",
                "allocation": {"amount": 0.5},
                "schedule": {"kind": "agp", "finetune": {"epochs": 20, "dropout": "rescale"}},
            },
            "stages.0",
            "those of `agp` grow",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "element",
                "allocation": {"threshold": 0.05},
                "schedule": {"kind": "agp", "finetune": {"epochs": 20}},
            },
            "stages.0",
            "known before it trains",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "n_m",
                "n": 2,
                "m": 4,
                "schedule": {"kind": "agp", "initial": 0.5, "finetune": {"epochs": 20}},
            },
            "stages.0",
            "must be below the amount (0.5)",
        ),
        (
            "stages.0",
            {
                "stage": "prune",
                "granularity": "n_m",
                "n": 2,
                "m": 4,
                "schedule": {"kind": "agp", "rounds": 5, "finetune": {"epochs": 5}},
            },
            "stages.0",
            "more than 5 epochs",
        ),
        ("stages.1.penalty", {"l1": 0}, None, "at least one of"),
        ("stages.1.penalty", {"l3": 1}, "stages.1.penalty.l3", "valid are `l1`"),
        ("stages.1.clip_norm", 0, None, "greater than 0"),
        ("stages.1.clip_value", -1, None, "greater than 0"),
        ("stages.1.ema", {"decay": 1}, "stages.1.ema.decay", "less than 1"),
        ("stages.1.ema", {"from_epoch": 1000}, "stages.1", "fewer than `epochs`"),
        ("stages.1.early_stopping", {"patience": 0}, "stages.1.early_stopping.patience", "1"),
        (
            "stages.1.early_stopping",
            {"metric": "f1"},
            "stages.1.early_stopping.metric",
            "'accuracy' or 'loss'",
        ),
        ("stages.1.accumulate", 0, None, "greater than or equal to 1"),
        ("stages.1.warmup_epochs", 1000, "stages.1", "fewer than `epochs`"),
        ("stages.1.lr_schedule", "linear", None, "'step'"),
        ("stages.0.granularity", "element", "stages.0", ""),
        ("stages.0.allocation.of", "weights", "stages.0", "must be `channels`"),
        ("stages.0.allocation.of", "macs", None, "'layers' or 'weights'"),
        ("stages", [], None, "at least 1"),
        ("stages.0", {"stage": "finetune"}, "", "nothing would become smaller"),
        ("stages.1", QUANTIZE | {"bit": 4}, "stages.1.bit", "Did you mean `bits`?"),
        ("stages.1", QUANTIZE | {"bits": 3}, "stages.1.bits", "8, 4, 2 or 1"),
        ("stages.1", QUANTIZE | {"scheme": "int3"}, "stages.1.scheme", "valid are 'weight_only'"),
        ("stages.1", {"stage": "quantize"}, "stages.1.scheme", "required"),
        ("inputs.0.shape.1", 0, None, "greater than or equal to 1"),
        ("inputs.0.dtype", "int4", None, "'float32'"),
        ("inputs.0", 3, None, "`{value: 3}`"),
        (
            "inputs.0",
            {"dict": {"a": {"shap": [1], "shape": [1]}}},
            "inputs.0.dict.a.shap",
            "Did you mean `shape`?",
        ),
        (
            "inputs.0",
            {"list": [{"tuple": [{"shape": [0]}]}]},
            "inputs.0.list.0.tuple.0.shape.0",
            "greater than or equal to 1",
        ),
        ("inputs.0", {"list": {"a": {"shape": [1]}}}, "inputs.0.list", "valid list"),
        ("inputs.0", {"list": [], "dtype": "int64"}, "inputs.0.dtype", "valid are `list`"),
        ("inputs.0", {"dict": {"a": {}}}, "inputs.0.dict.a.shape", "required"),
        ("inputs.0", {"dict": {"a": {"value": {"b": 1}}}}, "inputs.0.dict.a.value", "is a number"),
        ("inputs.0", NESTED, "inputs", "`inputs.0.list.0.list.0.list.0.list.0` is nested deeper"),
        ("version", 2, None, "1"),
        ("seed", -1, None, "greater than or equal to 0"),
    ],
)
def test_a_wrong_field_is_named(
    api: Api, path: str, value: Any, field: str | None, words: str
) -> None:
    recipe = broken(path, value)
    if field == "stages.0" and path.endswith("granularity"):
        recipe["stages"][0]["round_to"] = 8
        words = "`round_to` rounds channel counts"
    response = api.client.post("/v1/jobs", json={"model_id": "mdl_x", "recipe": recipe})
    assert response.status_code == 422, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "/problems/recipe-invalid"
    expected = ".".join(part for part in ("recipe", path if field is None else field) if part)
    assert [error["field"] for error in problem["errors"]] == [expected]
    assert words in problem["errors"][0]["message"]
    assert expected in problem["detail"]


def test_nested_inputs_are_let_in_and_kept(api: Api, model_id: str, recipe: Any) -> None:
    recipe["inputs"] = [
        {"shape": [1, 1, 8, 8], "dtype": "float32", "high": None},
        {"dict": {"ids": {"list": [{"tuple": [{"value": 3}, {"value": None}]}]}}},
        {"value": True},
    ]
    response = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe})
    assert response.status_code == 202, response.text
    job = api.client.get(f"/v1/jobs/{response.json()['id']}").json()
    assert job["recipe"]["inputs"] == recipe["inputs"]


def test_all_wrong_fields_are_named_at_once(api: Api) -> None:
    recipe = broken("stages.0.criterion", "best")
    recipe["seed"] = -1
    response = api.client.post("/v1/jobs", json={"recipe": recipe, "nme": "x", "device": "tpu"})
    fields = {error["field"]: error["message"] for error in response.json()["errors"]}
    assert set(fields) == {"recipe.stages.0.criterion", "recipe.seed", "nme", "device", "model_id"}
    assert "Did you mean `name`?" in fields["nme"]
    assert "'cuda'" in fields["device"]


@pytest.mark.parametrize("body", [b"{not json", b'{"a": 1,}'])
def test_a_body_that_is_not_json(api: Api, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = api.client.post("/v1/jobs", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["type"] == "/problems/bad-request"
    assert "not JSON" in response.json()["detail"]


@pytest.mark.parametrize("sent", ["application/x-www-form-urlencoded", "text/plain", None])
def test_a_body_that_is_not_sent_as_json(api: Api, sent: str | None) -> None:
    """`curl --data @job.json` sends a form."""
    headers = {} if sent is None else {"Content-Type": sent}
    response = api.client.post("/v1/jobs", content=b'{"model_id": "mdl_x"}', headers=headers)
    assert response.status_code == 415 if sent else 422
    if sent:
        assert sent in response.json()["detail"]
        assert "`Content-Type: application/json`" in response.json()["hint"]


@pytest.mark.parametrize(
    ("body", "field"), [("[]", "body"), ('{"model_id": "mdl_x", "recipe": "half"}', "recipe")]
)
def test_something_else_than_an_object(api: Api, body: str, field: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = api.client.post("/v1/jobs", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": field, "message": "Input should be an object with named fields."}
    ]


def test_no_body_at_all(api: Api) -> None:
    response = api.client.post("/v1/jobs")
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "body", "message": "This field is required."}]


@pytest.fixture
def model_id(api: Api, model_file: bytes) -> str:
    return str(api.client.post("/v1/models", content=model_file).json()["id"])


def refusal(api: Api, **body: Any) -> dict[str, str]:
    response = api.client.post("/v1/jobs", json=body)
    assert response.status_code == 422, response.text
    assert api.client.get("/v1/jobs?type=compress").json()["data"] == []
    return {error["field"]: error["message"] for error in response.json()["errors"]}


def test_training_needs_a_dataset(api: Api, model_id: str) -> None:
    fields = refusal(api, model_id=model_id, recipe=RECIPE)
    assert "recipe.stages.0.schedule.finetune" in fields["dataset_id"]


def test_without_a_dataset_the_inputs_must_be_given(api: Api, model_id: str, recipe: Any) -> None:
    recipe = {key: value for key, value in recipe.items() if key != "inputs"}
    fields = refusal(api, model_id=model_id, recipe=recipe)
    assert "shape" in fields["recipe.inputs"]


def dataset(api: Api, **changes: Any) -> str:
    arrays = {name: a for name, a in {**dataset_arrays(), **changes}.items() if a is not None}
    response = api.client.post("/v1/datasets", content=save(arrays))
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def test_early_stopping_needs_a_validation_split(api: Api, model_id: str, recipe: Any) -> None:
    recipe.pop("constraints", None)
    recipe["stages"].append({"stage": "finetune", "early_stopping": {"patience": 2}})
    unjudged = dataset(api, **{"validation/inputs/0": None, "validation/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=unjudged, recipe=recipe)
    expected = "`recipe.stages.1.early_stopping` needs `validation/targets/0`"
    assert expected in fields["dataset_id"]


def test_targets_must_be_classes(api: Api, model_id: str) -> None:
    wrong = dataset(api, **{"train/targets/0": np.zeros(12, np.float32)})
    fields = refusal(api, model_id=model_id, dataset_id=wrong, recipe=RECIPE)
    assert "`train/targets/0` is float32" in fields["dataset_id"]
    assert "int64" in fields["dataset_id"]


def test_a_missing_split_is_named(api: Api, model_id: str, recipe: Any) -> None:
    no_train = dataset(api, **{"train/inputs/0": None, "train/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=no_train, recipe=RECIPE)
    assert "`train/targets/0`" in fields["dataset_id"]
    no_validation = dataset(api, **{"validation/inputs/0": None, "validation/targets/0": None})
    recipe["constraints"] = {"max_accuracy_drop": 0.01}
    fields = refusal(api, model_id=model_id, dataset_id=no_validation, recipe=recipe)
    assert "recipe.constraints.max_accuracy_drop" in fields["dataset_id"]


def test_who_learns_from_the_upload_alone_needs_no_targets(api: Api, model_id: str) -> None:
    unlabelled = dataset(api, **{"train/targets/0": None})
    none = dataset(api, **{"train/inputs/0": None, "train/targets/0": None})

    def recipe(**distillation: float) -> dict[str, Any]:
        changed = copy.deepcopy(RECIPE)
        changed["stages"][0]["schedule"]["finetune"]["distillation"] = {"alpha": 1}
        changed["stages"][1]["distillation"] = distillation
        return changed

    asked = {"model_id": model_id, "dataset_id": unlabelled}
    fields = refusal(api, **asked, recipe=recipe(alpha=0.9))
    assert "`recipe.stages.1` needs `train/targets/0`" in fields["dataset_id"]
    assert "`distillation: {alpha: 1}`" in fields["dataset_id"]
    taught = recipe(alpha=1.0)
    fields = refusal(api, **{**asked, "dataset_id": none}, recipe=taught)
    assert "`recipe.stages.0.schedule.finetune` needs `train/inputs/0`" in fields["dataset_id"]
    limited = {**taught, "constraints": {"max_accuracy_drop": 0.1}}
    no_judge = dataset(api, **{"train/targets/0": None, "validation/targets/0": None})
    fields = refusal(api, **{**asked, "dataset_id": no_judge}, recipe=limited)
    assert "`validation/targets/0`" in fields["dataset_id"]
    response = api.client.post("/v1/jobs", json={**asked, "recipe": taught})
    assert response.status_code == 202, response.text


def test_a_recalibration_needs_inputs_alone(api: Api, model_id: str, recipe: Any) -> None:
    prune = {"stage": "prune", "allocation": {"amount": 0.5}}
    recipe["stages"] = [prune, {"stage": "recalibrate"}]
    fields = refusal(api, model_id=model_id, recipe=recipe)
    assert "`recipe.stages.1` needs a dataset" in fields["dataset_id"]
    no_train = dataset(api, **{"train/inputs/0": None, "train/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=no_train, recipe=recipe)
    assert "`recipe.stages.1` needs `train/inputs/0`" in fields["dataset_id"]
    unlabelled = dataset(api, **{"train/targets/0": None})
    body = {"model_id": model_id, "dataset_id": unlabelled, "recipe": recipe}
    assert api.client.post("/v1/jobs", json=body).status_code == 202


def test_criteria_of_data_need_what_they_look_at(api: Api, model_id: str, recipe: Any) -> None:
    recipe["stages"] = [{"stage": "prune", "criterion": "apoz", "allocation": {"amount": 0.5}}]
    fields = refusal(api, model_id=model_id, recipe=recipe)
    assert "`recipe.stages.0.criterion` needs a dataset" in fields["dataset_id"]
    no_train = dataset(api, **{"train/inputs/0": None, "train/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=no_train, recipe=recipe)
    assert "`recipe.stages.0.criterion` needs `train/inputs/0`" in fields["dataset_id"]

    unlabelled = dataset(api, **{"train/targets/0": None, "validation/targets/0": None})
    recipe["stages"][0]["criterion"] = "taylor"
    fields = refusal(api, model_id=model_id, dataset_id=unlabelled, recipe=recipe)
    assert "`recipe.stages.0.criterion` needs `train/targets/0`" in fields["dataset_id"]
    recipe["stages"][0]["scoring"] = {"target": "teacher"}
    body = {"model_id": model_id, "dataset_id": unlabelled, "recipe": recipe}
    assert api.client.post("/v1/jobs", json=body).status_code == 202


def test_a_tournament_needs_labels_to_judge_by(api: Api, model_id: str, recipe: Any) -> None:
    stage = {"stage": "prune", "criterion": "tournament", "allocation": {"amount": 0.5}}
    recipe["stages"] = [stage]
    fields = refusal(api, model_id=model_id, recipe=recipe)
    assert "`recipe.stages.0.criterion` needs a dataset" in fields["dataset_id"]
    unjudged = dataset(api, **{"validation/inputs/0": None, "validation/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=unjudged, recipe=recipe)
    assert "`recipe.stages.0.criterion` needs `validation/targets/0`" in fields["dataset_id"]
    untrained = dataset(api, **{"train/inputs/0": None, "train/targets/0": None})
    fields = refusal(api, model_id=model_id, dataset_id=untrained, recipe=recipe)
    assert "`recipe.stages.0.tournament.recovery` needs `train/targets/0`" in fields["dataset_id"]
    stage["tournament"] = {"criteria": ["l1_norm", "gradiant"]}
    fields = refusal(api, model_id=model_id, dataset_id=untrained, recipe=recipe)
    assert "'gradient'" in fields["recipe.stages.0.tournament.criteria.1"]
    # Without recovery taylor is left out and told of; the job can run.
    stage["tournament"] = {"criteria": ["l1_norm", "taylor"], "recovery": None}
    body = {"model_id": model_id, "dataset_id": untrained, "recipe": recipe}
    assert api.client.post("/v1/jobs", json=body).status_code == 202


def test_a_pattern_that_matches_no_layer(api: Api, model_id: str, recipe: Any) -> None:
    recipe["stages"][0]["exclude"] = ["features.*", "clasifier"]
    response = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe})
    assert response.status_code == 202  # the layers are not known before the inspection
    api.client.post(f"/v1/jobs/{response.json()['id']}/cancel")
    with api.backend.database.session() as session:
        model = session.get_one(ModelRecord, model_id)
        model.status, model.info = "ready", {"layers": ["features.0", "classifier"]}
    response = api.client.post("/v1/jobs", json={"model_id": model_id, "recipe": recipe})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["field"] == "recipe.stages.0.exclude.1"
    assert "`classifier`" in error["message"]


def test_patterns_of_frozen_layers_that_match_none(api: Api, model_id: str) -> None:
    with api.backend.database.session() as session:
        model = session.get_one(ModelRecord, model_id)
        model.status, model.info = "ready", {"layers": ["fc1", "fc3"]}
    recipe = copy.deepcopy(RECIPE)
    recipe["stages"][0]["schedule"]["finetune"]["freeze"] = ["stem.*"]
    recipe["stages"][1]["freeze"] = ["fc*", "head"]
    fields = refusal(api, model_id=model_id, dataset_id=dataset(api), recipe=recipe)
    assert set(fields) == {
        "recipe.stages.0.schedule.finetune.freeze.0",
        "recipe.stages.1.freeze.1",
    }
    assert "`head` matches no layer" in fields["recipe.stages.1.freeze.1"]


def test_ids_that_are_not_there(api: Api, model_id: str, recipe: Any) -> None:
    for body in (
        {"model_id": "mdl_none", "recipe": recipe},
        {"model_id": model_id, "dataset_id": "dst_none", "recipe": recipe},
    ):
        response = api.client.post("/v1/jobs", json=body)
        assert response.status_code == 404
        assert "_none" in response.json()["detail"]


def test_trade_off_curves_need_a_validation_split(api: Api, model_id: str) -> None:
    recipe = {
        "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
        "tradeoff": {"ratios": [0.5], "lines": [{"penalty": "none"}]},
    }
    assert (
        "`recipe.tradeoff` needs a dataset"
        in refusal(api, model_id=model_id, recipe=recipe)["dataset_id"]
    )
