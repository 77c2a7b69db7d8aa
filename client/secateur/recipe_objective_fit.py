"""Which parts of a recipe its objective rules out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from secateur.recipe_objective import CLASS_LOSSES, ObjectiveOptions

if TYPE_CHECKING:
    from secateur.recipe import Recipe

DRAWING_LOSSES = (*CLASS_LOSSES, "bce_with_logits", "mse")
"""Losses that are the likelihood of a distribution targets can be drawn from."""


def objective_fault(objective: ObjectiveOptions, recipe: Recipe) -> str | None:
    """What a recipe asks for that has no meaning under its objective, or None."""
    return (
        _accuracy_fault(objective, recipe)
        or _training_fault(objective, recipe)
        or _teacher_fault(objective, recipe)
    )


def module_faults(recipe: Recipe, given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the modules that come with a recipe: the role of one, and a message.

    Args:
        recipe: that says which it needs.
        given: roles of those that come with it, `loss` and `metric`.
    """
    fields = {role: f"objective.{role}" for role in recipe.objective.modules}
    for field, training in recipe.all_trainings():
        if training.loss == "module":
            fields.setdefault("loss", f"{field}.loss")
    given = set(given)
    for role in ("loss", "metric"):
        if role in fields and role not in given:
            yield role, f"`{fields[role]}: module` needs the module; upload it, as models are"
        if role in given and role not in fields:
            yield role, f"nothing uses it: set `objective.{role}: module`, or leave it out"


def _accuracy_fault(objective: ObjectiveOptions, recipe: Recipe) -> str | None:
    """A field that speaks of top-1 accuracy where none is measured."""
    if "accuracy" in objective.measured:
        return None
    why = (
        f"speaks of top-1 accuracy, and `objective.loss: {objective.loss}` is judged by "
        f"`{objective.judged_by}`"
    )
    if recipe.constraints.max_accuracy_drop is not None:
        return f"`constraints.max_accuracy_drop` {why}; use `constraints.max_metric_drop`"
    for field, training in recipe.all_trainings():
        stopping = training.early_stopping
        if stopping is not None and stopping.metric == "accuracy":
            return f"`{field}.early_stopping.metric: accuracy` {why}; use `metric: metric`"
    for index, stage in enumerate(recipe.stages):
        if stage.stage == "score" and stage.measure == "accuracy":
            return f"`stages.{index}.measure: accuracy` {why}; use `measure: metric`"
    return None


def _training_fault(objective: ObjectiveOptions, recipe: Recipe) -> str | None:
    """A training whose loss has no use for what it asks for."""
    for field, training in recipe.all_trainings():
        loss = training.loss_under(objective)
        if training.label_smoothing and loss not in CLASS_LOSSES:
            return f"`{field}.label_smoothing` is of no use to `loss: {loss}`, which has no classes"
        if loss == "next_token" != objective.loss:
            return (
                f"`{field}.loss: next_token` reads targets in another way than `objective.loss: "
                f"{objective.loss}`; set `objective: {{loss: next_token}}`"
            )
        taught = training.distillation
        classes = loss in (*CLASS_LOSSES, "module") and objective.loss in (*CLASS_LOSSES, "module")
        if taught is not None and taught.kind == "soft_targets" and not classes:
            return (
                f"`{field}.distillation.kind: soft_targets` compares probabilities of classes, and "
                f"`loss: {objective.loss}` has none; use `kind: mse` or `kind: cosine`"
            )
    return None


def _teacher_fault(objective: ObjectiveOptions, recipe: Recipe) -> str | None:
    """A criterion that draws labels from a loss that is no likelihood."""
    if objective.loss in DRAWING_LOSSES:
        return None
    for index, stage in enumerate(recipe.stages):
        scoring = getattr(stage, "scoring", None)
        if scoring is not None and scoring.target == "teacher":
            return (
                f"`stages.{index}.scoring.target: teacher` draws targets from what the upload "
                f"predicts, and `objective.loss: {objective.loss}` says nothing of how likely they "
                "are; use `target: labels`"
            )
    return None
