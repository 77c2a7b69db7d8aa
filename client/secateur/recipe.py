"""The recipe: what to remove from a model, when, and how to recover.

A recipe is plain data (YAML or JSON). It is validated here, once, for every door into the
product: the API refuses a bad one at POST, the CLI before uploading, the engine trusts it.
Unknown keys, impossible combinations and out-of-range values are errors that carry the path of
the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from secateur.recipe_allocation import Allocation, Distribution, Scope
from secateur.recipe_base import RecipeModel
from secateur.recipe_controls import random_control_fault
from secateur.recipe_criterion import (
    COMPARABLE_CRITERIA,
    GRADIENT_CRITERIA,
    INPUT_CRITERIA,
    LAYER_CRITERIA,
    Aggregate,
    Criterion,
    Granularity,
    Normalize,
    Scoring,
    granularity_fault,
    scoring_fault,
)
from secateur.recipe_granularity import (
    allocation_or_pattern,
    check_allocation,
    check_pattern,
    without_default,
)
from secateur.recipe_inputs import Input, check_extent
from secateur.recipe_lottery import TICKET_CRITERIA, TICKETS, Baseline, Imp, ImpRewind, Supermask
from secateur.recipe_schedule import (
    Agp,
    Iterative,
    LrRewind,
    OneShot,
    Rigl,
    Schedule,
    masks_while_training,
    misfit,
    training_field,
    training_of,
)
from secateur.recipe_score import ScoreStage, scan_fault
from secateur.recipe_tournament import (
    TOURNAMENT,
    StageCriterion,
    Tournament,
    entries,
    tournament_fault,
)
from secateur.recipe_tradeoff import TradeOff
from secateur.recipe_training import FinetuneOptions, Optimizer, Penalty, WeightAveraging

__all__ = [
    "Aggregate",
    "Agp",
    "Allocation",
    "Baseline",
    "Constraints",
    "Criterion",
    "Distribution",
    "FinetuneOptions",
    "FinetuneStage",
    "Granularity",
    "Imp",
    "ImpRewind",
    "Iterative",
    "LrRewind",
    "Measure",
    "Normalize",
    "OneShot",
    "Optimizer",
    "Penalty",
    "PruneStage",
    "Recipe",
    "Rigl",
    "Schedule",
    "Scope",
    "ScoreStage",
    "Scoring",
    "Stage",
    "Supermask",
    "Tournament",
    "WeightAveraging",
    "entries",
    "training_of",
]

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
    normalize: Normalize = "mean"
    """Divide scores by the layer's mean or maximum, which makes layers comparable when the scope
    is global. Left out, it is `none` for criteria whose scores compare between layers as they are:
    `bn_scale`, `lamp`, `taylor`, `hessian`, `snip`, `grasp`, `movement` and `synflow`. In a
    tournament `mean` leaves each criterion its own default."""
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
        if stage.get("criterion") in COMPARABLE_CRITERIA:
            stage = {"normalize": "none", **stage}
        return stage

    @model_validator(mode="after")
    def _criterion_judges_what_is_removed(self) -> Self:
        fault = granularity_fault(self.criterion, self.granularity)
        if fault is None and self.scoring is not None and self.criterion != TOURNAMENT:
            fault = scoring_fault(self.criterion, self.scoring)
        if fault is not None:
            raise ValueError(fault)
        if self.criterion == "taylor" and self.aggregate != "sum":
            raise ValueError(
                "`criterion: taylor` adds up the slices of a channel with their signs and squares "
                f"the sum; `aggregate` must be `sum` (or left out), not `{self.aggregate}`"
            )
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


class FinetuneStage(FinetuneOptions):
    """Train the compacted (or masked) program."""

    stage: Literal["finetune"]


Stage = Annotated[PruneStage | FinetuneStage | ScoreStage, Field(discriminator="stage")]


class Constraints(RecipeModel):
    """Limits on the result. A job whose result breaks one fails, with its report kept."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of top-1 accuracy on the validation split, as a fraction (0.01 = one point)."""
    min_speedup: Annotated[float, Field(gt=0)] | None = None
    """Smallest measured speed-up (median latency, original / compact) at the first batch size."""


class Measure(RecipeModel):
    """How latency is measured: original and compact alternately, in one process."""

    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        default=[1, 32], min_length=1, max_length=8
    )
    runs: Annotated[int, Field(ge=5, le=1000)] = 30


class Recipe(RecipeModel):
    """A whole recipe, version 1."""

    version: Literal[1] = 1
    inputs: list[Input] | None = Field(default=None, min_length=1, max_length=32)
    """What `forward` takes, argument by argument; left out, it is taken from the dataset."""
    stages: list[Stage] = Field(min_length=1, max_length=32)
    constraints: Constraints = Constraints()
    measure: Measure = Measure()
    baselines: list[Baseline] = Field(default=[], max_length=8)
    """Controls to report beside the result."""
    tradeoff: TradeOff | None = None
    """Accuracy against ratio with and without retraining, reported beside the result."""
    exports: list[Literal["torchscript"]] = Field(default=["torchscript"])
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_within_bounds(cls, inputs: Any) -> Any:
        return check_extent(inputs)

    @model_validator(mode="after")
    def _something_is_pruned_or_scanned(self) -> Self:
        if self.scans:
            fields = ("constraints", "measure", "baselines")
            defaults = type(self).model_fields
            idle = [name for name in fields if getattr(self, name) != defaults[name].default]
            fault = scan_fault(self.stages, idle)
            if fault is not None:
                raise ValueError(fault)
        elif not any(isinstance(stage, PruneStage) for stage in self.stages):
            raise ValueError("`stages` has no `stage: prune`; nothing would be removed")
        return self

    @property
    def scans(self) -> list[ScoreStage]:
        """The score stages; where there is one there are no others, and the job makes no model."""
        return [stage for stage in self.stages if isinstance(stage, ScoreStage)]

    @model_validator(mode="after")
    def _nothing_follows_weights_that_no_mask_holds(self) -> Self:
        for index, stage in enumerate(self.stages[:-1]):
            schedule = stage.schedule if isinstance(stage, PruneStage) else None
            if isinstance(schedule, Supermask) and schedule.removed != "zero":
                raise ValueError(
                    f"`stages.{index}.schedule.removed: {schedule.removed}` leaves removed weights "
                    "at values that no mask holds: no stage may follow; use `removed: zero`"
                )
        return self

    @model_validator(mode="after")
    def _baselines_train_somehow(self) -> Self:
        for index, baseline in enumerate(self.baselines):
            if baseline.training is None and not self.trainings():
                raise ValueError(
                    f"`baselines.{index}` has no `training`, and no stage of the recipe trains; "
                    "say how the baseline is to be trained"
                )
        fault = random_control_fault(self.baselines, self.stages)
        if fault is not None:
            raise ValueError(fault)
        return self

    def trainings(self) -> list[FinetuneOptions]:
        """The training runs of its stages, in order, each with the epochs it takes."""
        found: list[FinetuneOptions] = []
        for stage in self.stages:
            if isinstance(stage, FinetuneStage):
                found.append(stage)
                continue
            if isinstance(stage, ScoreStage):
                continue
            schedule = stage.schedule
            if isinstance(schedule, Supermask):
                continue
            training = training_of(schedule)
            if training is None:
                continue
            if isinstance(schedule, LrRewind):
                found.extend([training.rest(schedule.rewind_to_epoch)] * schedule.rounds)
            elif isinstance(schedule, Iterative | Agp) and not masks_while_training(
                schedule, stage.granularity
            ):
                found.extend([training] * schedule.rounds)
            else:
                # The rounds of `imp` look for the ticket; its own training is what a control
                # repeats. `rigl`, and `agp` on weights, train once.
                found.append(training)
        return found

    def layer_patterns(self) -> Iterator[tuple[str, list[str]]]:
        """Every list of layer patterns with the path of its field."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, FinetuneStage):
                yield f"stages.{index}.freeze", stage.freeze
                continue
            yield f"stages.{index}.exclude", stage.exclude
            if isinstance(stage, ScoreStage):
                continue
            yield f"stages.{index}.allocation.layers", list(stage.allocation.layers or ())
            training = training_of(stage.schedule)
            if training is not None:
                field = training_field(stage.schedule)
                yield f"stages.{index}.schedule.{field}.freeze", training.freeze
            recovery = None if stage.contest is None else stage.contest.recovery
            if recovery is not None:
                yield f"stages.{index}.tournament.recovery.freeze", recovery.freeze
        for index, baseline in enumerate(self.baselines):
            if baseline.training is not None:
                yield f"baselines.{index}.training.freeze", baseline.training.freeze
        if self.tradeoff is not None:
            yield from self.tradeoff.layer_patterns()

    def needs_dataset(self) -> str | None:
        """Path of the first field that cannot run without a dataset, or None."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, FinetuneStage):
                return f"stages.{index}"
            if isinstance(stage, ScoreStage):
                continue
            if stage.needs_samples or stage.contest is not None:
                return f"stages.{index}.criterion"
            if training_of(stage.schedule) is not None:
                return f"stages.{index}.schedule.{training_field(stage.schedule)}"
        if self.baselines or self.tradeoff is not None:
            return "baselines.0" if self.baselines else "tradeoff"
        if self.constraints.max_accuracy_drop is not None:
            return "constraints.max_accuracy_drop"
        return self._scan_field(ScoreStage.dataset_field)

    def scanned_split(self, split: str, *, targets: bool) -> str | None:
        """Path of the first field of a scan that needs this split (or its targets), or None."""
        return self._scan_field(lambda stage: stage.split_field(split, targets=targets))

    def _scan_field(self, asks: Callable[[ScoreStage], str | None]) -> str | None:
        found = ((index, asks(stage)) for index, stage in enumerate(self.scans))
        return next((f"stages.{index}.{field}" for index, field in found if field), None)

    def needs_targets(self) -> str | None:
        """Path of the first field that needs a training split with targets, or None."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, FinetuneStage):
                return f"stages.{index}"
            if isinstance(stage, ScoreStage):
                continue
            if stage.needs_targets:
                return f"stages.{index}.criterion"
            if stage.contest is not None and stage.contest.recovery is not None:
                return f"stages.{index}.tournament.recovery"
            if training_of(stage.schedule) is not None:
                return f"stages.{index}.schedule.{training_field(stage.schedule)}"
        if self.baselines or self.tradeoff is not None:
            return "baselines.0" if self.baselines else "tradeoff"
        return self.scanned_split("train", targets=True)

    def needs_validation(self) -> str | None:
        """Path of the first field that needs a validation split with targets, or None."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, PruneStage) and stage.contest is not None:
                return f"stages.{index}.criterion"
        if self.constraints.max_accuracy_drop is not None:
            return "constraints.max_accuracy_drop"
        return None if self.tradeoff is None else "tradeoff"
