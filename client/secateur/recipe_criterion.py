"""What is removed, and how importance is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from secateur.recipe_base import RecipeModel
from secateur.recipe_lottery import TICKET_CRITERIA, TICKETS

Criterion = Literal[
    "l1_norm",
    "l2_norm",
    "geometric_median",
    "bn_scale",
    "lamp",
    "apoz",
    "mean_activation",
    "wanda",
    "gradient",
    "taylor",
    "hessian",
    "snip",
    "grasp",
    "movement",
    "synflow",
    "random",
    "output_effect",
    "block_influence",
    "large_final",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "init_movement",
    "large_final_same_sign",
]
Granularity = Literal["channel", "head", "layer", "element", "n_m"]
Aggregate = Literal["sum", "mean", "max", "l2"]
Normalize = Literal["none", "mean", "max"]
SlicesScored = Literal["producing", "reading", "all"]

LAYER_CRITERIA = ("output_effect", "block_influence")
"""They judge whole residual branches and nothing else."""
ANY_CRITERIA = ("l1_norm", "l2_norm", "random")
"""They judge at every granularity, residual branches included."""
CHANNEL_CRITERIA = {
    "geometric_median": "a single weight has no neighbours to be near to",
    "bn_scale": "BatchNorm scales channels",
    "apoz": "activations belong to channels",
    "mean_activation": "activations belong to channels",
}
"""They judge channels and heads only, and why not single weights."""
INPUT_CRITERIA = ("apoz", "mean_activation", "wanda")
"""They run the model on training inputs; targets are not needed."""
GRADIENT_CRITERIA = ("gradient", "taylor", "hessian", "snip", "grasp", "movement")
"""They differentiate the loss on training samples."""
COMPARABLE_CRITERIA = (
    "bn_scale",
    "lamp",
    "taylor",
    "hessian",
    "snip",
    "grasp",
    "movement",
    "synflow",
)
"""Their papers rank over the whole network as the scores stand."""
_LOCAL_EXPANSIONS = ("taylor", "hessian")
"""They foretell the loss after a small change. Of single weights that ranks a network; many
channels of a layer at once are no small change, and layers of low scores would go all but whole
(docs/accuracy.md)."""
_SLICE_CRITERIA = (
    "l1_norm", "l2_norm", "geometric_median", "lamp",
    "wanda", "gradient", "taylor", "hessian", "snip", "grasp", "movement", "synflow",
)  # fmt: skip
"""They score a channel by the weights that belong to it."""
DEFAULT_SCORING_LR = 0.01


class Scoring(RecipeModel):
    """The samples that importance is judged on: drawn from the `train` split by the seed."""

    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """As many as the split has, when it has fewer."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    target: Literal["labels", "teacher"] | None = None
    """What gradients are taken towards: the dataset's targets, or labels drawn from what the
    upload itself predicts (no targets needed). Left out, it is `labels`."""
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Criterion `movement`: passes over the samples that a copy is trained for, where the schedule
    has not trained yet. Left out, it is 1."""
    lr: Annotated[float, Field(gt=0, le=10)] | None = None
    """Criterion `movement`: learning rate of that copy, which plain gradient descent trains. Left
    out, it is 0.01."""


def granularity_fault(criterion: str, granularity: str) -> str | None:
    """Why this criterion cannot judge at this granularity, or None."""
    if granularity == "layer":
        if criterion in (*LAYER_CRITERIA, *ANY_CRITERIA):
            return None
        return (
            f"`criterion: {criterion}` does not judge whole layers; use "
            f"{', '.join(f'`{name}`' for name in (*LAYER_CRITERIA, *ANY_CRITERIA))}"
        )
    if criterion in LAYER_CRITERIA:
        return f"`criterion: {criterion}` judges whole layers; granularity is `{granularity}`"
    if criterion in TICKET_CRITERIA and granularity != "element":
        return (
            f"`criterion: {criterion}` compares single weights with their initial values: it needs "
            f"`granularity: element` (it is `{granularity}`) and a schedule that keeps those, "
            f"{', '.join(f'`{kind}`' for kind in TICKETS)}"
        )
    if granularity in ("element", "n_m") and criterion in CHANNEL_CRITERIA:
        return (
            f"`criterion: {criterion}` judges channels and heads: {CHANNEL_CRITERIA[criterion]}; "
            f"granularity is `{granularity}`"
        )
    return None


def compares_between_layers(criterion: str, granularity: str) -> bool:
    """Whether scores are ranked over the network as they stand, where nothing else is asked."""
    if criterion in _LOCAL_EXPANSIONS:
        return granularity in ("element", "n_m")
    return criterion in COMPARABLE_CRITERIA


def slices_fault(criterion: str | None, granularity: str) -> str | None:
    """Why a choice of `slices` means nothing for this criterion at this granularity, or None.

    Args:
        criterion: None where each of several takes what it has use for.
    """
    if granularity not in ("channel", "head"):
        return (
            "`slices` says which weights of a channel are scored; granularity is "
            f"`{granularity}`: leave `slices` out"
        )
    if criterion is not None and criterion not in _SLICE_CRITERIA:
        return (
            f"`slices` says whether the weights that read a channel are scored, and `criterion: "
            f"{criterion}` looks at none of them: leave `slices` out, or use "
            f"{', '.join(f'`{name}`' for name in _SLICE_CRITERIA)}"
        )
    return None


def scoring_fault(criterion: str, scoring: Scoring) -> str | None:
    """Why `scoring` says something that this criterion does not use, or None."""
    if criterion not in (*INPUT_CRITERIA, *GRADIENT_CRITERIA):
        return f"`scoring` is of no use to `criterion: {criterion}`, which looks at no samples"
    for name in ("epochs", "lr"):
        if getattr(scoring, name) is not None and criterion != "movement":
            return (
                f"`scoring.{name}` is of no use to `criterion: {criterion}`, which trains no copy"
            )
    if scoring.target is not None and criterion in INPUT_CRITERIA:
        return f"`scoring.target` is of no use to `criterion: {criterion}`, which takes no gradient"
    return None


def aggregate_fault(criterion: str, aggregate: str) -> str | None:
    """Why a criterion's slices cannot be combined in this way, or None."""
    if criterion == "taylor" and aggregate != "sum":
        return (
            "`criterion: taylor` adds up the slices of a channel with their signs and squares "
            f"the sum; `aggregate` must be `sum` (or left out), not `{aggregate}`"
        )
    return None
