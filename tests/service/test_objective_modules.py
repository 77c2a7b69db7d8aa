"""Objectives at `POST /v1/jobs`: uploaded losses and metrics, targets, recipes without meaning."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tests.service.conftest import Api, scripted

STAGES = [
    {"stage": "prune", "allocation": {"amount": 0.5}},
    {"stage": "finetune", "epochs": 1},
]


class Mean(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean()


def upload(api: Api, content: bytes, kind: str = "models") -> str:
    response = api.client.post(f"/v1/{kind}", content=content)
    assert response.status_code in (200, 201), response.text
    return str(response.json()["id"])


def dataset(api: Api, **targets: Tensor) -> str:
    tensors = {}
    for split in ("train", "validation"):
        tensors[f"{split}/inputs/0"] = torch.zeros(4, 3, 8, 8)
        for name, value in targets.items():
            tensors[f"{split}/targets/{name[1:]}"] = value.clone()
    return upload(api, save(tensors), "datasets")


def faults(api: Api, body: dict[str, Any]) -> dict[str, str]:
    response = api.client.post("/v1/jobs", json=body)
    if response.status_code == 202:
        return {}
    assert response.status_code == 422, response.text
    return {error["field"]: error["message"] for error in response.json()["errors"]}


def test_the_job_names_its_modules_and_keeps_them(sql_api: Api, model_file: bytes) -> None:
    loss = upload(sql_api, scripted(Mean()))
    body = {
        "model_id": upload(sql_api, model_file),
        "dataset_id": dataset(sql_api, _0=torch.zeros(4, 10)),
        "recipe": {
            "stages": STAGES,
            "objective": {"loss": "module", "metric": "module", "higher_is_better": False},
        },
    }
    missing = faults(sql_api, body)
    assert list(missing) == ["loss_model_id", "metric_model_id"]
    assert "`objective.metric: module` needs the module" in missing["metric_model_id"]

    body |= {"loss_model_id": loss, "metric_model_id": loss}
    made = sql_api.client.post("/v1/jobs", json=body)
    assert made.status_code == 202, made.text
    job = sql_api.client.get(f"/v1/jobs/{made.json()['id']}").json()
    assert (job["loss_model_id"], job["metric_model_id"]) == (loss, loss)
    held = sql_api.client.delete(f"/v1/models/{loss}")
    assert held.status_code == 409
    assert job["id"] in held.json()["detail"]
    sql_api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert sql_api.client.delete(f"/v1/models/{loss}").status_code == 204


def test_modules_of_no_use(api: Api, model_file: bytes) -> None:
    model = upload(api, model_file)
    body = {
        "model_id": model,
        "dataset_id": dataset(api, _0=torch.zeros(4, dtype=torch.int64)),
        "recipe": {"stages": STAGES},
        "loss_model_id": model,
    }
    response = api.client.post("/v1/jobs", json=body)
    said = [error["message"] for error in response.json()["errors"]]
    assert len(said) == 2
    assert "nothing uses it" in said[0]
    assert "It is the model itself" in said[1]

    body["recipe"] = {"stages": [STAGES[0], STAGES[1] | {"loss": "module"}]}
    body["loss_model_id"] = upload(api, scripted(Mean()))
    assert faults(api, body) == {}


@pytest.mark.parametrize(
    ("objective", "target", "says"),
    [
        ({}, torch.zeros(4), "the loss cross_entropy of `recipe.stages.1` needs class indices"),
        ({"loss": "mse"}, torch.zeros(4, dtype=torch.bool), "loss mse .* needs numbers"),
        (
            {"loss": "bce_with_logits"},
            torch.zeros(4, 10, dtype=torch.int64),
            "needs labels between 0 and 1",
        ),
        ({"loss": "next_token"}, torch.zeros(4, 8), "needs token ids"),
        ({"loss": "mse"}, torch.zeros(4, 10), None),
        ({"loss": "bce_with_logits"}, torch.zeros(4, 10), None),
    ],
)
def test_targets_against_the_loss(
    api: Api, model_file: bytes, objective: dict[str, Any], target: Tensor, says: str | None
) -> None:
    body = {
        "model_id": upload(api, model_file),
        "dataset_id": dataset(api, _0=target),
        "recipe": {"stages": STAGES, "objective": objective},
    }
    found = faults(api, body)
    assert list(found) == ([] if says is None else ["dataset_id"])
    if says is not None:
        assert re.search(says, found["dataset_id"])


def test_several_targets_need_a_choice(api: Api, model_file: bytes) -> None:
    body = {
        "model_id": upload(api, model_file),
        "dataset_id": dataset(api, _0=torch.zeros(4, 10), _1=torch.zeros(4, dtype=torch.int64)),
        "recipe": {"stages": STAGES},
    }
    assert "takes one: say which" in faults(api, body)["recipe.objective.target"]
    body["recipe"] = {"stages": STAGES, "objective": {"target": 2}}
    assert "names no target" in faults(api, body)["recipe.objective.target"]
    body["recipe"] = {"stages": STAGES, "objective": {"target": 1}}
    assert faults(api, body) == {}


def test_a_language_model_needs_no_targets(api: Api, model_file: bytes) -> None:
    body = {
        "model_id": upload(api, model_file),
        "dataset_id": dataset(api),
        "recipe": {
            "stages": STAGES,
            "objective": {"loss": "next_token"},
            "constraints": {"max_metric_drop": {"relative": 0.1}},
        },
    }
    assert faults(api, body) == {}
    body["recipe"] = {"stages": STAGES}
    assert "needs `train/targets/0`" in faults(api, body)["dataset_id"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": {"loss": "mse", "metric": "accuracy"}}, "metric `accuracy` says nothing"),
        ({"objective": {"loss": "mse", "label_smoothing": 0.1}}, "`label_smoothing` is of no use"),
        ({"objective": {"loss": "mse", "ignore_index": 0}}, "`ignore_index` is of no use"),
        ({"objective": {"loss": "l1", "beta": 2}}, "`beta` is of no use"),
        ({"objective": {"loss": "module", "metric": "module"}}, "needs `higher_is_better`"),
        ({"objective": {"higher_is_better": True}}, "is of `metric: module`"),
        (
            {"objective": {"loss": "mse"}, "constraints": {"max_accuracy_drop": 0.1}},
            "use `constraints.max_metric_drop`",
        ),
        (
            {
                "objective": {"loss": "mse"},
                "stages": [
                    STAGES[0],
                    STAGES[1] | {"early_stopping": {"metric": "accuracy"}},
                ],
            },
            "`stages.1.early_stopping.metric: accuracy` speaks of top-1 accuracy",
        ),
        (
            {"objective": {"loss": "mse"}, "stages": [STAGES[0], STAGES[1] | {"distillation": {}}]},
            "use `kind: mse` or `kind: cosine`",
        ),
        (
            {
                "objective": {"loss": "l1"},
                "stages": [STAGES[0] | {"criterion": "taylor", "scoring": {"target": "teacher"}}],
            },
            "`objective.loss: l1` says nothing of how likely",
        ),
        ({"stages": [STAGES[0], STAGES[1] | {"loss": "next_token"}]}, "reads targets in another"),
        ({"constraints": {"max_metric_drop": {}}}, "exactly one of `absolute` and `relative`"),
        (
            {
                "stages": [
                    STAGES[0],
                    STAGES[1] | {"distillation": {"kind": "mse", "temperature": 2}},
                ]
            },
            "`temperature` softens class probabilities",
        ),
    ],
)
def test_recipes_without_meaning_are_refused(
    api: Api, model_file: bytes, changes: dict[str, Any], says: str
) -> None:
    body = {"model_id": "mdl_0", "recipe": {"stages": STAGES} | changes}
    response = api.client.post("/v1/jobs", json=body)
    assert response.status_code == 422
    assert says in response.text
