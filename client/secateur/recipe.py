"""The recipe: what to remove from a model, when, and how to recover.

A recipe is plain data (YAML or JSON). It is validated here, once, for every door into the
product: the API refuses a bad one at POST, the CLI before uploading, the engine trusts it.
Unknown keys, impossible combinations and out-of-range values are errors that carry the path of
the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from secateur.recipe_allocation import Allocation, Distribution, Scope
from secateur.recipe_base import RecipeModel
from secateur.recipe_checkpoint import Checkpoints
from secateur.recipe_constraints import Constraints, Limit
from secateur.recipe_controls import random_control_fault
from secateur.recipe_criterion import (
    Aggregate,
    Criterion,
    Granularity,
    Normalize,
    Scoring,
    SlicesScored,
)
from secateur.recipe_data import Data
from secateur.recipe_distillation import Distillation
from secateur.recipe_exports import Exports, twice
from secateur.recipe_features import FeatureMatch
from secateur.recipe_inputs import Input, check_extent
from secateur.recipe_lottery import Baseline, Imp, ImpRewind, Supermask
from secateur.recipe_objective import ObjectiveOptions
from secateur.recipe_objective_fit import objective_fault
from secateur.recipe_prune import PruneStage
from secateur.recipe_quantize import (
    Codebook,
    DynamicInt8,
    HalfPrecision,
    MixedPrecision,
    QuantizeOptions,
    QuantizeStage,
    SparseWeights,
    StaticInt8,
    StoredOptions,
    WeightOnly,
    judged_field,
    order_fault,
)
from secateur.recipe_recalibration import RecalibrateStage
from secateur.recipe_schedule import (
    Agp,
    Iterative,
    LrRewind,
    OneShot,
    Rigl,
    Schedule,
    masks_while_training,
    training_field,
    training_of,
)
from secateur.recipe_score import ScoreStage, scan_fault
from secateur.recipe_search import Search
from secateur.recipe_tournament import (
    Tournament,
    entries,
)
from secateur.recipe_tradeoff import TradeOff
from secateur.recipe_training import (
    EarlyStopping,
    FinetuneOptions,
    Optimizer,
    Penalty,
    WeightAveraging,
)
from secateur.search_space import at_point, corners, plain, space_error, space_faults

__all__ = [
    "Aggregate",
    "Agp",
    "Allocation",
    "Baseline",
    "Checkpoints",
    "Codebook",
    "Constraints",
    "Criterion",
    "Data",
    "Distillation",
    "Distribution",
    "DynamicInt8",
    "EarlyStopping",
    "FeatureMatch",
    "FinetuneOptions",
    "FinetuneStage",
    "Granularity",
    "HalfPrecision",
    "Imp",
    "ImpRewind",
    "Iterative",
    "Limit",
    "LrRewind",
    "Measure",
    "MixedPrecision",
    "Normalize",
    "ObjectiveOptions",
    "OneShot",
    "Optimizer",
    "Penalty",
    "PruneStage",
    "QuantizeOptions",
    "QuantizeStage",
    "RecalibrateStage",
    "Recipe",
    "Rigl",
    "Schedule",
    "Scope",
    "ScoreStage",
    "Scoring",
    "Search",
    "SlicesScored",
    "SparseWeights",
    "Stage",
    "StaticInt8",
    "Supermask",
    "Tournament",
    "WeightAveraging",
    "WeightOnly",
    "entries",
    "training_of",
]


class FinetuneStage(FinetuneOptions):
    """Train the compacted (or masked) program."""

    stage: Literal["finetune"]


Stage = Annotated[
    PruneStage | FinetuneStage | RecalibrateStage | ScoreStage | QuantizeStage,
    Field(discriminator="stage"),
]


def _flat(schema: dict[str, Any]) -> None:
    """Stages as one choice: OpenAPI knows no discriminator within another."""
    items = schema["items"]
    choices = [each.get("oneOf", [each]) for each in items["oneOf"]]
    schema["items"] = {"oneOf": [choice for several in choices for choice in several]}


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
    data: Data = Data()
    """How the dataset is read: transforms, image files, columns of tables, windows of tokens."""
    stages: list[Stage] = Field(min_length=1, max_length=32, json_schema_extra=_flat)
    objective: ObjectiveOptions = ObjectiveOptions()
    """What the model is for: the loss that is minimised and the metric that decides."""
    constraints: Constraints = Constraints()
    measure: Measure = Measure()
    baselines: list[Baseline] = Field(default=[], max_length=8)
    """Controls to report beside the result."""
    tradeoff: TradeOff | None = None
    """Accuracy against ratio with and without retraining, reported beside the result."""
    checkpoint: Checkpoints | None = None
    """How often training notes where it stands; null as often as costs at most 3 % of the time. It
    changes no result."""
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that train together, each on a GPU of its own (on a CPU worker: each on its share
    of the cores) and each on its part of every batch."""
    deterministic: bool = False
    """Only kernels that give the same bits every time, on a GPU too, where they are slower; an
    operator that has none fails the job. On a CPU they always do."""
    search: Search | None = None
    """Numbers of the stages that vary; the job then tries many recipes and keeps the best."""
    exports: Exports = Field(default=["torchscript"])
    """Formats in which the result is written, each verified; see [exports](exports.md). The
    TorchScript file is written in any case."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    _written: dict[str, Any] | None = PrivateAttr(default=None)
    """A recipe with a search, as it was written: what was left out takes the defaults that belong
    to the values of a trial, not those of the base."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_within_bounds(cls, inputs: Any) -> Any:
        return check_extent(inputs)

    @model_validator(mode="after")
    def _something_is_made_smaller_or_scanned(self) -> Self:
        if self.scans:
            fields = ("constraints", "measure", "baselines", "exports")
            defaults = type(self).model_fields
            idle = [name for name in fields if getattr(self, name) != defaults[name].default]
            fault = scan_fault(self.stages, idle)
            if fault is not None:
                raise ValueError(fault)
            if self.search is not None:
                raise ValueError(
                    "`search` tries recipes that make models, and a recipe of `stage: score` makes "
                    "none; leave one of them out"
                )
        elif not any(isinstance(stage, PruneStage | QuantizeOptions) for stage in self.stages):
            raise ValueError(
                "`stages` has no `stage: prune` and no `stage: quantize`; nothing would become "
                "smaller"
            )
        return self

    @model_validator(mode="after")
    def _nothing_moves_quantised_weights(self) -> Self:
        fault = order_fault(self.stages)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _each_format_once(self) -> Self:
        fault = twice(self.exports)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _objective_fits_the_stages(self) -> Self:
        fault = objective_fault(self.objective, self)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _search_compares_what_is_measured(self) -> Self:
        fault = None if self.search is None else self.search.unmeasured(self.objective.measured)
        if fault is not None:
            raise ValueError(fault)
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

    @model_validator(mode="after")
    def _checkpoints_are_of_training(self) -> Self:
        if self.checkpoint is not None and self.needs_training() is None:
            raise ValueError(
                "`checkpoint` says how often training notes where it stands, and nothing trains; "
                "leave it out"
            )
        return self

    def trainings(self) -> list[FinetuneOptions]:
        """The training runs of its stages but those that quantise, in order, each with the epochs
        it takes: what a control of pruning repeats."""
        found: list[FinetuneOptions] = []
        for stage in self.stages:
            if isinstance(stage, FinetuneStage):
                found.append(stage)
                continue
            if not isinstance(stage, PruneStage):
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
            if isinstance(stage, RecalibrateStage):
                continue
            yield f"stages.{index}.exclude", stage.exclude
            if isinstance(stage, StoredOptions | StaticInt8) and stage.finetune is not None:
                yield f"stages.{index}.finetune.freeze", stage.finetune.freeze
            if isinstance(stage, ScoreStage | QuantizeOptions):
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
            if isinstance(stage, FinetuneStage | RecalibrateStage | StaticInt8):
                return f"stages.{index}"
            if isinstance(stage, StoredOptions) and stage.finetune is not None:
                return f"stages.{index}.finetune"
            if not isinstance(stage, PruneStage):
                continue
            if stage.needs_samples or stage.contest is not None:
                return f"stages.{index}.criterion"
            if training_of(stage.schedule) is not None:
                return f"stages.{index}.schedule.{training_field(stage.schedule)}"
        if self.baselines or self.tradeoff is not None:
            return "baselines.0" if self.baselines else "tradeoff"
        return self._judged_by_accuracy() or self._scan_field(ScoreStage.dataset_field)

    def _judged_by_accuracy(self) -> str | None:
        """Path of the first field that limits or seeks accuracy or loss, or None."""
        if self.constraints.on_validation is not None:
            return f"constraints.{self.constraints.on_validation}"
        judged = judged_field(self.stages)
        if judged is not None or self.search is None:
            return judged
        return self.search.labelled_field()

    def scanned_split(self, split: str, *, targets: bool) -> str | None:
        """Path of the first field of a scan that needs this split (or its targets), or None."""
        return self._scan_field(lambda stage: stage.split_field(split, targets=targets))

    def _scan_field(self, asks: Callable[[ScoreStage], str | None]) -> str | None:
        found = ((index, asks(stage)) for index, stage in enumerate(self.scans))
        return next((f"stages.{index}.{field}" for index, field in found if field), None)

    def needs_targets(self) -> str | None:
        """Path of the first field that needs a training split with targets, or None."""
        judged = self.objective.needs_targets
        for index, stage in enumerate(self.stages):
            if isinstance(stage, PruneStage) and stage.needs_targets and judged:
                return f"stages.{index}.criterion"
            for field, training in self._trained_by(index, stage):
                if training.learns_from_targets(self.objective):
                    return field
        for field, training in self._trained_beside():
            if training.learns_from_targets(self.objective):
                return field
        return self.scanned_split("train", targets=True) if judged else None

    def needs_training(self) -> str | None:
        """Path of the first field that trains, by labels or not, or None."""
        for index, stage in enumerate(self.stages):
            for field, _ in self._trained_by(index, stage):
                return field
        return next((field for field, _ in self._trained_beside()), None)

    def all_trainings(self) -> Iterator[tuple[str, FinetuneOptions]]:
        """Every training run, of stages and beside them, each with the path of its field."""
        for index, stage in enumerate(self.stages):
            yield from self._trained_by(index, stage)
        yield from self._trained_beside()

    @staticmethod
    def _trained_by(index: int, stage: Stage) -> Iterator[tuple[str, FinetuneOptions]]:
        """The training runs of a stage, each with the path of its field."""
        if isinstance(stage, FinetuneStage):
            yield f"stages.{index}", stage
        elif isinstance(stage, StoredOptions | StaticInt8):
            if stage.finetune is not None:
                yield f"stages.{index}.finetune", stage.finetune
        elif isinstance(stage, PruneStage):
            if stage.contest is not None and stage.contest.recovery is not None:
                yield f"stages.{index}.tournament.recovery", stage.contest.recovery
            training = training_of(stage.schedule)
            if training is not None:
                yield f"stages.{index}.schedule.{training_field(stage.schedule)}", training

    def _trained_beside(self) -> Iterator[tuple[str, FinetuneOptions]]:
        """The same of what is reported beside the result."""
        trainings = self.trainings() if self.baselines else []
        for index, baseline in enumerate(self.baselines):
            training = baseline.training or (trainings[-1] if trainings else None)
            # Without one the recipe is refused, by a check of its own.
            if training is not None:
                yield f"baselines.{index}", training
        if self.tradeoff is not None:
            for training in (self.tradeoff.learning, self.tradeoff.retraining):
                if training is not None:
                    yield "tradeoff", training

    def needs_validation(self) -> str | None:
        """Path of the first field that needs a validation split with targets, or None."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, PruneStage) and stage.contest is not None:
                return f"stages.{index}.criterion"
        for index, stage in enumerate(self.stages):
            if isinstance(stage, FinetuneStage) and stage.early_stopping is not None:
                return f"stages.{index}.early_stopping"
            if isinstance(stage, StoredOptions | StaticInt8):
                training = stage.finetune
                if training is not None and training.early_stopping is not None:
                    return f"stages.{index}.finetune.early_stopping"
            if isinstance(stage, PruneStage):
                training = training_of(stage.schedule)
                if training is not None and training.early_stopping is not None:
                    field = training_field(stage.schedule)
                    return f"stages.{index}.schedule.{field}.early_stopping"
        return self._judged_by_accuracy() or (None if self.tradeoff is None else "tradeoff")

    @property
    def as_written(self) -> dict[str, Any]:
        """Plain data: with a search as it was written, else with all defaults."""
        if self.search is None or self._written is None:
            return self.model_dump(mode="json")
        search = self.search.model_dump(mode="json")
        return {**self._written, "search": search}

    @property
    def base(self) -> dict[str, Any]:
        """The recipe that the trials of a search vary, as it was written."""
        return {key: value for key, value in self.as_written.items() if key != "search"}

    def corners(self) -> list[tuple[dict[str, Any], Recipe]]:
        """The recipes at the corners of the search's space, with the values that make them."""
        space = {} if self.search is None else self.search.space
        base = self.base
        return [(point, Recipe.model_validate(at_point(base, point))) for point in corners(space)]

    # Last, and so around all the others: what is wrong with the base is told first.
    @model_validator(mode="wrap")
    @classmethod
    def _space_holds_valid_recipes(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self]
    ) -> Self:
        recipe = handler(data)
        if recipe.search is None or not isinstance(data, dict):
            return recipe
        written = plain(data)
        base = {key: value for key, value in written.items() if key != "search"}
        faults = space_faults(base, recipe.search.space, Recipe.model_validate)
        if faults:
            raise space_error(cls.__name__, faults, data)
        recipe._written = base
        return recipe
