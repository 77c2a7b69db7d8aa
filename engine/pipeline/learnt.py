"""What a training run learns from: the train split, and with a teacher unlabelled samples too."""

from __future__ import annotations

from secateur.recipe import FinetuneOptions, Recipe

from engine.data.splits import Dataset, Split


def learnt_from(dataset: Dataset, options: FinetuneOptions, recipe: Recipe, *, field: str) -> Split:
    """The split of a run.

    With a teacher the samples of `unlabelled` follow those of `train`: one order is drawn over
    both, so a batch holds each kind in proportion to how many there are, and an epoch sees every
    sample once. Where nothing needs targets, either split alone will do.

    Args:
        dataset: of the job.
        options: of the run.
        recipe: whose objective says whether a loss needs targets.
        field: path of the run in the recipe.

    Raises:
        DatasetInvalid: what the run needs is missing.
    """
    targets = options.learns_from_targets(recipe.objective)
    distillation, more = options.distillation, dataset.unlabelled
    if distillation is None or more is None or not distillation.learns_unlabelled:
        return dataset.require("train", field, targets=targets)
    if dataset.train is None and not targets:
        return more
    return dataset.require("train", field, targets=targets).with_unlabelled(more)
