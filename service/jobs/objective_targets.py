"""Targets of a dataset against the loss of a recipe: names and dtypes, which are known at POST."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from secateur.recipe import Recipe
from secateur.recipe_objective import CLASS_LOSSES
from secateur.resources import FieldProblem

_INTEGERS = frozenset({"int64", "int32", "int16", "int8", "uint8"})
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


def target_faults(
    recipe: Recipe, field: str, tensors: Mapping[str, Mapping[str, Any]]
) -> Iterator[FieldProblem]:
    """Every target tensor that the loss cannot take.

    Args:
        recipe: with its objective.
        field: of the recipe, that looks at targets.
        tensors: of the dataset, by name.
    """
    objective = recipe.objective
    for split in ("train", "validation"):
        names = sorted(name for name in tensors if name.startswith(f"{split}/targets/"))
        if objective.loss != "module" and objective.target is None and len(names) > 1:
            yield FieldProblem(
                field="recipe.objective.target",
                message=f"the dataset has {len(names)} target tensors in `{split}`, and the loss "
                f"{objective.loss} takes one: say which, counted from 0.",
            )
            continue
        if objective.target is not None and names:
            if objective.target >= len(names):
                yield FieldProblem(
                    field="recipe.objective.target",
                    message=f"`{objective.target}` names no target of `{split}`, which has "
                    f"{len(names)}, counted from 0.",
                )
            names = names[objective.target : objective.target + 1]
        taken, needs = _taken(objective.loss)
        for name in names:
            if taken is not None and tensors[name]["dtype"] not in taken:
                yield FieldProblem(
                    field="dataset_id",
                    message=f"`{name}` is {tensors[name]['dtype']}; the loss {objective.loss} of "
                    f"`recipe.{field}` needs {needs}.",
                )


def _taken(loss: str) -> tuple[frozenset[str] | None, str]:
    """Dtypes that a loss takes, None for any; and in words."""
    if loss == "next_token":
        return _INTEGERS, "token ids, as int64"
    if loss in CLASS_LOSSES:
        return _INTEGERS, "class indices, as int64"
    if loss == "bce_with_logits":
        return _FLOATS | {"bool"}, "labels between 0 and 1, as float32"
    if loss == "module":
        return None, ""
    return _FLOATS | _INTEGERS, "numbers, as float32"
