"""The sensitivity scan: what a model loses when one layer alone is pruned, ratio by ratio.

A recipe of such stages makes a score job: its result is a table, a plot and the scores, and no
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import (
    GRADIENT_CRITERIA,
    INPUT_CRITERIA,
    Aggregate,
    Criterion,
    Scoring,
    SlicesScored,
    aggregate_fault,
    granularity_fault,
    scoring_fault,
    slices_fault,
)
from secateur.recipe_lottery import TICKET_CRITERIA

Quantity = Literal["drift", "metric", "accuracy", "loss"]
ScannedGranularity = Literal["channel", "head", "element"]


class ScoreStage(RecipeModel):
    """Prune one layer alone at every ratio, measure, and put it back; then the next layer."""

    stage: Literal["score"]
    granularity: ScannedGranularity = "channel"
    criterion: Criterion = "l1_norm"
    """What goes first within a layer."""
    aggregate: Aggregate = "sum"
    """Channels and heads: how the scores of coupled slices become one score."""
    slices: SlicesScored = "producing"
    """Channels and heads: which coupled slices are scored: those of the weights that produce the
    channel, of those that read it, or all."""
    scoring: Scoring | None = None
    """Criteria that run the model: the samples they judge on."""
    ratios: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.1, 0.25, 0.5, 0.75, 0.9], min_length=1, max_length=64
    )
    """Shares of a layer that are removed, each larger than the one before."""
    measure: Quantity = "drift"
    """`drift`: how far the outputs move, which needs no targets; `metric` (the job's, see
    `objective`), `accuracy` (top-1) or `loss`: what that costs."""
    split: Literal["validation", "train"] = "validation"
    """The samples that are measured on; without a dataset a drift is measured on the example."""
    samples: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """As many of them, drawn by the seed; all when null."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Samples that are run at a time."""
    exclude: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default=[], max_length=256
    )
    """Glob patterns over layer names; matching layers are not scanned."""

    @model_validator(mode="after")
    def _criterion_judges_what_is_removed(self) -> Self:
        if self.criterion in TICKET_CRITERIA:
            raise ValueError(
                f"`criterion: {self.criterion}` compares weights with initial ones, and a scan "
                "looks at a model as it is; use a criterion such as `l1_norm`"
            )
        fault = granularity_fault(self.criterion, self.granularity)
        if fault is None and self.scoring is not None:
            fault = scoring_fault(self.criterion, self.scoring)
        if fault is None and self.slices != "producing":
            fault = slices_fault(self.criterion, self.granularity)
        fault = fault or aggregate_fault(self.criterion, self.aggregate)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _ratios_rise(self) -> Self:
        for before, after in pairwise(self.ratios):
            if after <= before:
                raise ValueError(
                    f"`ratios` must rise: {after:g} follows {before:g}; write each once, in order"
                )
        return self

    @property
    def needs_samples(self) -> bool:
        """Whether importance is judged on samples of the training split."""
        return self.criterion in (*INPUT_CRITERIA, *GRADIENT_CRITERIA)

    @property
    def needs_targets(self) -> bool:
        """Whether those samples must have targets."""
        target = None if self.scoring is None else self.scoring.target
        return self.criterion in GRADIENT_CRITERIA and target != "teacher"

    @property
    def labelled(self) -> bool:
        """Whether what is measured needs targets."""
        return self.measure != "drift"

    def dataset_field(self) -> str | None:
        """The first field that cannot do without a dataset, or None."""
        if self.needs_samples:
            return "criterion"
        if self.labelled:
            return "measure"
        if self.samples is not None:
            return "samples"
        return "split" if self.split == "train" else None

    def split_field(self, split: str, *, targets: bool) -> str | None:
        """The field for which this split is needed in a dataset (or its targets), or None."""
        if split == "train" and (self.needs_targets if targets else self.needs_samples):
            return "criterion"
        if split != self.split or (targets and not self.labelled):
            return None
        return "measure" if self.labelled else "split"


def scan_fault(stages: Sequence[object], idle: Sequence[str]) -> str | None:
    """What is wrong with a recipe that has score stages, or None.

    Args:
        stages: of the recipe.
        idle: fields of the recipe that are given and speak of a compressed model.
    """
    for index, stage in enumerate(stages):
        if not isinstance(stage, ScoreStage):
            return (
                f"`stages.{index}` changes the model, and a `stage: score` beside it measures one "
                "and makes none; send the scan as a recipe of its own, which makes a score job"
            )
    if idle:
        return (
            f"`{'` and `'.join(idle)}` {'speaks' if len(idle) == 1 else 'speak'} of a compressed "
            "model, and a recipe of `stage: score` makes none; leave it out"
        )
    return None
