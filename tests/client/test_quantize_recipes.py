"""Quantise stages of recipes: what is refused, with the field."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from secateur.recipe import Recipe

INPUTS = [{"shape": [1, 4]}]
QUANTIZE = {"stage": "quantize", "scheme": "weight_only"}


def refusal(stages: list[dict[str, object]]) -> str:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"inputs": INPUTS, "stages": stages})
    return str(caught.value)


def test_a_recipe_may_quantise_alone_and_needs_no_data() -> None:
    recipe = Recipe.model_validate({"inputs": INPUTS, "stages": [QUANTIZE]})
    assert recipe.needs_dataset() is None
    assert dict(recipe.layer_patterns()) == {"stages.0.exclude": []}
    assert recipe.trainings() == []


@pytest.mark.parametrize("later", [{"stage": "prune", "allocation": {"amount": 0.5}},
                                   {"stage": "finetune", "epochs": 1}])  # fmt: skip
def test_no_stage_that_moves_weights_follows(later: dict[str, object]) -> None:
    told = refusal([QUANTIZE, {"stage": "recalibrate"}, later])
    assert f"`stages.2` is a `{later['stage']}` stage after `stages.0`, which quantises" in told


def test_statistics_may_be_measured_anew_between() -> None:
    stages = [QUANTIZE, {"stage": "recalibrate"}, QUANTIZE]
    assert len(Recipe.model_validate({"stages": stages}).stages) == 3


def test_bits_and_schemes_are_of_a_list() -> None:
    assert "stages.0" in refusal([QUANTIZE | {"bits": 3}])
    assert "scheme" in refusal([QUANTIZE | {"scheme": "ternary"}])
    assert "nothing would become smaller" in refusal([{"stage": "recalibrate"}])


def test_a_stage_that_trains_needs_what_training_needs() -> None:
    training = {"epochs": 3, "early_stopping": {}, "freeze": ["head"]}
    recipe = Recipe.model_validate(
        {"stages": [QUANTIZE | {"finetune": training}], "checkpoint": {"steps": 10}}
    )
    assert recipe.needs_dataset() == "stages.0.finetune"
    assert recipe.needs_targets() == "stages.0.finetune"
    assert recipe.needs_training() == "stages.0.finetune"
    assert recipe.needs_validation() == "stages.0.finetune.early_stopping"
    assert ("stages.0.finetune.freeze", ["head"]) in recipe.layer_patterns()
    assert recipe.trainings() == []  # a control of pruning repeats none of it


def test_faults_of_that_training_name_their_field() -> None:
    told = refusal([QUANTIZE | {"finetune": {"epochs": 0}}])
    assert "finetune.epochs" in told


def test_int8_trains_on_what_it_can_name() -> None:
    stage = {"stage": "quantize", "scheme": "static_int8"}
    recipe = Recipe.model_validate({"stages": [stage | {"finetune": {"epochs": 2}}]})
    assert recipe.needs_targets() == "stages.0.finetune"
    assert "dropout" in refusal([stage | {"finetune": {"dropout": "rescale"}}])
    features = {"distillation": {"features": [{"layer": "layer2"}]}}
    assert "features" in refusal([stage | {"finetune": features}])


def test_sparse_values_are_stored_in_one_way_and_not_trained() -> None:
    sparse = {"stage": "quantize", "scheme": "sparse"}
    assert "leave one out" in refusal([sparse | {"bits": 4, "shared": 16}])
    assert "before it" in refusal([sparse | {"finetune": {"epochs": 1}}])
