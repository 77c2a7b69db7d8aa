"""What a recipe that distils needs, and what it is refused for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from secateur.recipe import Distillation, FinetuneOptions, Recipe

ALONE: dict[str, Any] = {"distillation": {"alpha": 1}}
MIXED: dict[str, Any] = {"distillation": {}}
PRUNE: dict[str, Any] = {"stage": "prune", "allocation": {"amount": 0.5}}
FINETUNE: dict[str, Any] = {"stage": "finetune"}


def recipe(*stages: dict[str, Any], **fields: Any) -> Recipe:
    return Recipe.model_validate({"stages": list(stages), **fields})


def test_defaults_use_labels_and_null_is_no_teacher() -> None:
    assert Distillation().needs_targets
    assert FinetuneOptions().distillation is None
    assert FinetuneOptions().needs_targets
    assert not FinetuneOptions.model_validate(ALONE).needs_targets


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"alpha": -0.1}, "greater than or equal to 0"),
        ({"alpha": 1.1}, "less than or equal to 1"),
        ({"temperature": 0}, "greater than 0"),
        ({"temperature": float("inf")}, "less than or equal to 1000"),
        ({"alpha": float("nan")}, "less than or equal to 1"),
    ],
)
def test_shares_and_temperatures_out_of_range(fields: dict[str, float], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Distillation.model_validate(fields)


def test_labels_that_are_not_looked_at_are_not_smoothed() -> None:
    with pytest.raises(ValidationError, match=r"`label_smoothing` is of no use with `distillation"):
        recipe(PRUNE, FINETUNE | ALONE | {"label_smoothing": 0.1})
    assert recipe(PRUNE, FINETUNE | MIXED | {"label_smoothing": 0.1}).needs_targets() == "stages.1"


def test_the_first_training_by_labels_is_named() -> None:
    rounds = PRUNE | {"schedule": {"kind": "iterative", "finetune": ALONE}}
    taught = recipe(rounds, FINETUNE | ALONE)
    assert taught.needs_targets() is None
    assert taught.needs_training() == taught.needs_dataset() == "stages.0.schedule.finetune"
    assert recipe(rounds, FINETUNE | MIXED).needs_targets() == "stages.1"
    assert recipe(rounds, FINETUNE | ALONE, FINETUNE).needs_targets() == "stages.2"
    judged = PRUNE | {"criterion": "taylor"}
    assert recipe(judged, FINETUNE | ALONE).needs_targets() == "stages.0.criterion"
    assert recipe(PRUNE).needs_training() is None


def test_tickets_and_tournaments() -> None:
    tickets = PRUNE | {"schedule": {"kind": "imp", "training": ALONE}}
    assert recipe(tickets).needs_targets() is None
    assert recipe(tickets).needs_training() == "stages.0.schedule.training"
    contest = PRUNE | {"criterion": "tournament", "tournament": {"recovery": ALONE}}
    assert recipe(contest).needs_targets() is None
    assert recipe(contest).needs_training() == "stages.0.tournament.recovery"
    assert recipe(contest).needs_validation() == "stages.0.criterion"


def test_controls_learn_as_the_result_did_unless_they_say_so() -> None:
    stages = PRUNE, FINETUNE | ALONE
    assert recipe(*stages, baselines=[{"kind": "scratch_e"}]).needs_targets() is None
    by_labels = [{"kind": "scratch_e"}, {"kind": "scratch_b", "training": {"epochs": 2}}]
    assert recipe(*stages, baselines=by_labels).needs_targets() == "baselines.1"
    alone = [{"kind": "scratch_e", "training": ALONE}]
    assert recipe(PRUNE, baselines=alone).needs_targets() is None
    assert recipe(PRUNE, baselines=alone).needs_training() == "baselines.0"


def test_trade_off_curves() -> None:
    curves: dict[str, Any] = {"ratios": [0.5], "lines": [{"penalty": "none"}]}
    taught = recipe(PRUNE, tradeoff=curves | {"retraining": ALONE})
    assert taught.needs_targets() is None
    assert taught.needs_training() == "tradeoff"
    learning = recipe(PRUNE, tradeoff=curves | {"retraining": ALONE, "learning": {}})
    assert learning.needs_targets() == "tradeoff"
