"""A prune stage: what one step of pruning takes away, by what judgement and when."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from secateur.recipe_allocation import Allocation
from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import (
    GRADIENT_CRITERIA,
    INPUT_CRITERIA,
    LAYER_CRITERIA,
    Aggregate,
    Granularity,
    Normalize,
    Scoring,
    SlicesScored,
    aggregate_fault,
    compares_between_layers,
    granularity_fault,
    scoring_fault,
    slices_fault,
)
from secateur.recipe_granularity import (
    allocation_or_pattern,
    check_allocation,
    check_pattern,
    without_default,
)
from secateur.recipe_lottery import TICKET_CRITERIA, TICKETS
from secateur.recipe_schedule import (
    OneShot,
    Schedule,
    masks_while_training,
    misfit,
)
from secateur.recipe_tournament import (
    TOURNAMENT,
    StageCriterion,
    Tournament,
    entries,
    tournament_fault,
)

_REMOVED = {
    "channel": "channels",
    "head": "heads",
    "layer": "layers",
    "element": "weights",
    "n_m": "weights",
}


class PruneStage(RecipeModel):
    """Remove channels, attention heads or whole layers physically, or single weights by mask."""

    stage: Literal["prune"]
    granularity: Granularity = "channel"
    n: Annotated[int, Field(ge=1, le=255)] | None = None
    """Granularity `n_m`: weights that are kept of every `m`."""
    m: Annotated[int, Field(ge=2, le=256)] | None = None
    """Granularity `n_m`: neighbours along a layer's inputs that make a group."""
    criterion: StageCriterion = "l1_norm"
    """What goes first; left out, it is `output_effect` for granularity `layer`. `tournament` tries
    several and takes the best."""
    tournament: Tournament | None = None
    """`criterion: tournament`: who competes, at what cost; null is a tournament of `all`."""
    aggregate: Aggregate = "sum"
    """Channels: how the scores of coupled slices become one score."""
    slices: SlicesScored = "producing"
    """Channels: which coupled slices are scored: those of the weights that produce the channel, of
    those that read it, or all."""
    normalize: Normalize = "mean"
    """Divide scores by the layer's mean or maximum, which makes layers comparable when the scope
    is global. Left out, it is `none` for criteria whose scores compare between layers as they are:
    `bn_scale`, `lamp`, `snip`, `grasp`, `movement` and `synflow`, and of single weights `taylor`
    and `hessian`. In a tournament `mean` leaves each criterion its own default."""
    scoring: Scoring | None = None
    """Criteria that run the model: the samples they judge on."""
    allocation: Allocation = Field(
        default=None, validate_default=True, json_schema_extra=without_default
    )
    schedule: Schedule = OneShot()
    exclude: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default=[], max_length=256
    )
    """Glob patterns over layer names; the outputs of matching layers are left whole."""
    round_to: Annotated[int, Field(ge=1, le=256)] | None = None
    """Channels: keep a multiple of this many in every layer."""
    remove_dead: bool = False
    """Weights: once all are masked, take out neurons and filters that have no input or no output
    left."""

    @field_validator("allocation", mode="before")
    @classmethod
    def _some_allocation(cls, allocation: Any, info: ValidationInfo) -> Any:
        return allocation_or_pattern(allocation, info.data)

    @model_validator(mode="after")
    def _tournament_can_be_held(self) -> Self:
        fault = tournament_fault(
            self.criterion,
            self.tournament,
            self.granularity,
            self.allocation,
            self.schedule.kind,
        )
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _fields_fit_the_granularity(self) -> Self:
        check_pattern(self.granularity, self.n, self.m, self.allocation)
        check_allocation(self.granularity, self.criterion, self.allocation)
        if self.remove_dead and self.granularity != "element":
            raise ValueError(
                "`remove_dead` follows the masking of single weights; granularity is "
                f"`{self.granularity}`"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, stage: Any) -> Any:
        if not isinstance(stage, dict):
            return stage
        schedule = stage.get("schedule")
        if isinstance(schedule, dict) and schedule.get("kind") in TICKETS:
            stage = {"granularity": "element", **stage}
        if stage.get("granularity") == "layer":
            stage = {"criterion": LAYER_CRITERIA[0], **stage}
        if compares_between_layers(
            str(stage.get("criterion")), str(stage.get("granularity", "channel"))
        ):
            stage = {"normalize": "none", **stage}
        return stage

    @model_validator(mode="after")
    def _criterion_judges_what_is_removed(self) -> Self:
        fault = granularity_fault(self.criterion, self.granularity)
        if fault is None and self.scoring is not None and self.criterion != TOURNAMENT:
            fault = scoring_fault(self.criterion, self.scoring)
        if fault is None and self.slices != "producing":
            judge = None if self.criterion == TOURNAMENT else self.criterion
            fault = slices_fault(judge, self.granularity)
        fault = fault or aggregate_fault(self.criterion, self.aggregate)
        if fault is not None:
            raise ValueError(fault)
        return self

    @property
    def contest(self) -> Tournament | None:
        """The tournament that decides the criterion; None where the recipe names it."""
        return (self.tournament or Tournament()) if self.criterion == TOURNAMENT else None

    @property
    def needs_samples(self) -> bool:
        """Whether importance is judged on samples of the training split.

        A tournament can do without those that need any.
        """
        return self.criterion in (*INPUT_CRITERIA, *GRADIENT_CRITERIA)

    @property
    def needs_targets(self) -> bool:
        """Whether those samples must have targets."""
        target = None if self.scoring is None else self.scoring.target
        return self.criterion in GRADIENT_CRITERIA and target != "teacher"

    @model_validator(mode="after")
    def _amount_counts_what_is_removed(self) -> Self:
        removed = _REMOVED[self.granularity]
        if self.allocation.of not in (None, removed):
            raise ValueError(
                f"`allocation.of` must be `{removed}` (or left out) for granularity "
                f"`{self.granularity}`; it is `{self.allocation.of}`"
            )
        return self

    @model_validator(mode="after")
    def _tickets_are_masks(self) -> Self:
        ticket = self.schedule.kind in TICKETS
        if self.criterion in TICKET_CRITERIA and not ticket:
            raise ValueError(
                f"`criterion: {self.criterion}` compares weights with initial ones, which only the "
                f"schedules {', '.join(f'`{kind}`' for kind in TICKETS)} keep"
            )
        if self.remove_dead and ticket:
            raise ValueError(
                f"`remove_dead` takes neurons out, and `schedule.kind: {self.schedule.kind}` goes "
                "back to weights of the original shapes; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        fault = misfit(self.schedule, self.granularity, self.allocation)
        if fault is not None:
            raise ValueError(fault)
        ramp = masks_while_training(self.schedule, self.granularity)
        if ramp and self.criterion == "movement" and self.scoring is not None:
            raise ValueError(
                "`scoring` is of no use to `criterion: movement` with `schedule.kind: agp` on "
                "weights: the run in which they are masked is what judges them. Leave it out"
            )
        if ramp and (self.allocation.threshold or self.allocation.quality):
            raise ValueError(
                "`schedule.kind: agp` on single weights grows to an amount that is known before "
                "it trains; give `amount`, `count`, `layers` or `distribution` in `allocation`"
            )
        return self

    @model_validator(mode="after")
    def _round_to_needs_channels(self) -> Self:
        if self.round_to is not None and self.granularity != "channel":
            raise ValueError(
                f"`round_to` rounds channel counts; granularity is `{self.granularity}`"
            )
        return self

    @model_validator(mode="after")
    def _named_contestants_can_compete(self) -> Self:
        # Last: what is wrong with the stage itself is wrong for every contestant.
        if self.contest is None or self.contest.criteria == "all":
            return self
        for place, entry in enumerate(entries(self)):
            if entry.stage is None:
                raise ValueError(
                    f"`tournament.criteria.{place}`: {entry.reason}. Take it off the list"
                )
        return self
