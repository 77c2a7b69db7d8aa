"""Budgets, limits and half precision in recipes: what is refused, with the field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from secateur.recipe import Recipe

MIXED = {"stage": "quantize", "scheme": "mixed_precision"}
ONLY = {"stage": "quantize", "scheme": "weight_only", "bits": 2}
HALF = {"stage": "quantize", "scheme": "fp16"}


def recipe(*stages: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"inputs": [{"shape": [1, 4]}], "stages": list(stages)})


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (MIXED, "budget"),
        (MIXED | {"budget": {}}, "exactly one of `bytes`, `max_drift`"),
        (MIXED | {"budget": {"bytes": 0.2, "max_drift": 1}}, "exactly one"),
        (MIXED | {"budget": {"bytes": 1}}, "budget.bytes"),
        (MIXED | {"budget": {"bytes": 0.0}}, "budget.bytes"),
        (MIXED | {"budget": {"bytes": 0.2}, "formats": [8]}, "formats"),
        (MIXED | {"budget": {"bytes": 0.2}, "formats": [8, 8]}, "twice"),
        (MIXED | {"budget": {"bytes": 0.2}, "formats": [8, 3]}, "formats"),
        (MIXED | {"budget": {"max_drift": 0.1}, "sensitivity": "loss"}, "needs `sensitivity"),
        (ONLY | {"fall_back": {"bytes": 0.2}}, "fall_back"),
        (ONLY | {"fall_back": {}}, "exactly one of `max_drift`"),
        (HALF | {"compute": "half", "decode": "at_use"}, "`decode: at_use` casts"),
        (HALF | {"interface": "half"}, "is of a program with `compute: half`"),
    ],
)
def test_what_makes_no_sense_is_refused(stage: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        recipe(stage)
    assert told in str(caught.value)
    assert "stages.0" in str(caught.value)


def test_a_program_that_computes_in_half_stores_nothing_otherwise() -> None:
    with pytest.raises(ValidationError, match=r"`stages\.1\.compute: half` computes with"):
        recipe(ONLY, HALF | {"compute": "half"})
    assert len(recipe(ONLY | {"exclude": ["a"]}, HALF).stages) == 2


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        (MIXED | {"budget": {"bytes": 0.2}}, None),
        (MIXED | {"budget": {"bytes": 1000}}, None),
        (MIXED | {"budget": {"max_drift": 0.1}}, None),
        (MIXED | {"budget": {"max_accuracy_drop": 0.01}}, "stages.0.budget.max_accuracy_drop"),
        (MIXED | {"budget": {"bytes": 0.2}, "sensitivity": "loss"}, "stages.0.sensitivity"),
        (ONLY | {"fall_back": {"max_drift": 0.1}}, None),
        (ONLY | {"fall_back": {"max_loss_increase": 0}}, "stages.0.fall_back.max_loss_increase"),
    ],
)
def test_what_needs_labels_says_so(stage: dict[str, Any], field: str | None) -> None:
    made = recipe(stage)
    assert made.needs_validation() == field
    assert made.needs_dataset() == field
    assert made.needs_targets() is None
    # What a worker reads is what was written.
    assert Recipe.model_validate(made.as_written) == made


def test_a_half_recipe_comes_back_as_it_was_written() -> None:
    made = recipe(HALF | {"compute": "half", "interface": "half", "scheme": "bf16"})
    assert Recipe.model_validate(made.as_written) == made
