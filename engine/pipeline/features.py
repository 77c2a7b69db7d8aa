"""The features of a job: found in the upload once, followed, and matched for each training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from secateur.recipe import Distillation, Recipe
from secateur.recipe_features import FeatureMatch

from engine.features.followed import Followed
from engine.features.matching import Matched, chosen, match_features
from engine.features.outputs import find_features
from engine.tape import record
from engine.torchscript.program import Program


def feature_matches(recipe: Recipe) -> Iterator[tuple[str, FeatureMatch]]:
    """Every feature of the recipe with the path of its field."""
    for path, distillation in _distillations(recipe, "recipe"):
        for number, match in enumerate(distillation.features):
            yield f"{path}.features.{number}", match


def follow_features(original: Program, recipe: Recipe, inputs: Sequence[Any]) -> None:
    """Have the upload, and all that is made of it, followed where the recipe compares features.

    Raises:
        PatternMatchesNothing: a pattern matches no module.
        TrainingRuleUnmet: what a pattern matches cannot be compared.
    """
    wanted = list(feature_matches(recipe))
    if not wanted:
        return
    tape = record(original, inputs)
    features = find_features(tape)
    for field, match in wanted:
        chosen(features, match, field=field)
    original.followed = Followed(tape, features.found)


def matched_features(
    original: Program,
    student: Program,
    distillation: Distillation | None,
    inputs: Sequence[Any],
    *,
    field: str,
) -> tuple[list[Matched], list[str]]:
    """What a run from this program compares; see `match_features`."""
    if distillation is None or not distillation.features or original.followed is None:
        return [], []
    return match_features(
        original,
        student,
        distillation.features,
        inputs,
        find_features(original.followed.tape),
        field=f"{field}.distillation.features",
    )


def _distillations(value: Any, path: str) -> Iterator[tuple[str, Distillation]]:
    if isinstance(value, Distillation):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _distillations(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _distillations(item, f"{path}.{number}")
