"""The recipe: what to remove from a model, when, and how to recover.

A recipe is plain data (YAML or JSON). It is validated here, once, for every door into the
product: the API refuses a bad one at POST, the CLI before uploading, the engine trusts it.
Unknown keys, impossible combinations and out-of-range values are errors that carry the path of
the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from secateur.recipe_allocation import Allocation, Scope
from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import Aggregate, Criterion, Granularity, Normalize
from secateur.recipe_inputs import Input, check_extent
from secateur.recipe_lottery import TICKET_CRITERIA, TICKETS, Baseline, Imp, ImpRewind, Supermask
from secateur.recipe_schedule import Iterative, OneShot, Schedule
from secateur.recipe_training import FinetuneOptions, Optimizer

__all__ = [
    "Aggregate",
    "Allocation",
    "Baseline",
    "Constraints",
    "Criterion",
    "FinetuneOptions",
    "FinetuneStage",
    "Granularity",
    "Imp",
    "ImpRewind",
    "Iterative",
    "Measure",
    "Normalize",
    "OneShot",
    "Optimizer",
    "PruneStage",
    "Recipe",
    "Schedule",
    "Scope",
    "Stage",
    "Supermask",
]

_REMOVED = {"channel": "channels", "head": "heads", "layer": "layers", "element": "weights"}
_OF_LAYERS = ("output_effect", "block_influence")
"""Criteria that judge whole residual branches."""


class PruneStage(RecipeModel):
    """Remove channels, attention heads or whole layers physically, or single weights by mask."""

    stage: Literal["prune"]
    granularity: Granularity = "channel"
    criterion: Criterion = "l1_norm"
    """What goes first; left out, it is `output_effect` for granularity `layer`."""
    aggregate: Aggregate = "sum"
    """Channels: how the scores of coupled slices become one score."""
    normalize: Normalize = "mean"
    """Divide scores by the layer's mean or maximum, which makes layers comparable when the scope
    is global."""
    allocation: Allocation
    schedule: Schedule = OneShot()
    exclude: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default=[], max_length=256
    )
    """Glob patterns over layer names; the outputs of matching layers are left whole."""
    round_to: Annotated[int, Field(ge=1, le=256)] | None = None
    """Channels: keep a multiple of this many in every layer."""

    @model_validator(mode="before")
    @classmethod
    def _tickets_of_elements(cls, stage: Any) -> Any:
        schedule = stage.get("schedule") if isinstance(stage, dict) else None
        kind = schedule.get("kind") if isinstance(schedule, dict) else None
        return {"granularity": "element", **stage} if kind in TICKETS else stage

    @model_validator(mode="before")
    @classmethod
    def _layers_by_their_effect(cls, stage: Any) -> Any:
        if isinstance(stage, dict) and stage.get("granularity") == "layer":
            return {"criterion": _OF_LAYERS[0], **stage}
        return stage

    @model_validator(mode="after")
    def _effects_are_those_of_layers(self) -> Self:
        if self.criterion in _OF_LAYERS and self.granularity != "layer":
            raise ValueError(
                f"`criterion: {self.criterion}` judges whole layers; granularity is "
                f"`{self.granularity}`"
            )
        return self

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
        if self.schedule.kind in TICKETS and self.granularity != "element":
            raise ValueError(
                f"`schedule.kind: {self.schedule.kind}` rewinds single weights and needs "
                f"`granularity: element`; it is `{self.granularity}`"
            )
        if self.criterion in TICKET_CRITERIA and self.schedule.kind not in TICKETS:
            raise ValueError(
                f"`criterion: {self.criterion}` compares weights with initial ones, which only the "
                f"schedules {', '.join(f'`{kind}`' for kind in TICKETS)} keep"
            )
        return self

    @model_validator(mode="after")
    def _round_to_needs_channels(self) -> Self:
        if self.round_to is not None and self.granularity != "channel":
            raise ValueError(
                f"`round_to` rounds channel counts; granularity is `{self.granularity}`"
            )
        return self


class FinetuneStage(FinetuneOptions):
    """Train the compacted (or masked) program."""

    stage: Literal["finetune"]


Stage = Annotated[PruneStage | FinetuneStage, Field(discriminator="stage")]


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
    exports: list[Literal["torchscript"]] = Field(default=["torchscript"])
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_within_bounds(cls, inputs: Any) -> Any:
        return check_extent(inputs)

    @model_validator(mode="after")
    def _something_is_pruned(self) -> Self:
        if not any(isinstance(stage, PruneStage) for stage in self.stages):
            raise ValueError("`stages` has no `stage: prune`; nothing would be removed")
        return self

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
        return self

    def trainings(self) -> list[FinetuneOptions]:
        """The training runs of its stages, in order."""
        found: list[FinetuneOptions] = []
        for stage in self.stages:
            if isinstance(stage, FinetuneStage):
                found.append(stage)
            elif isinstance(stage.schedule, Iterative) and stage.schedule.finetune is not None:
                found.extend([stage.schedule.finetune] * stage.schedule.rounds)
            elif isinstance(stage.schedule, Imp | ImpRewind):
                # The rounds look for the ticket; its own training is what a control repeats.
                found.append(stage.schedule.training)
        return found

    def needs_dataset(self) -> str | None:
        """Path of the first field that cannot run without a dataset, or None."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, FinetuneStage):
                return f"stages.{index}"
            if isinstance(stage.schedule, Iterative) and stage.schedule.finetune is not None:
                return f"stages.{index}.schedule.finetune"
            if isinstance(stage.schedule, Imp | ImpRewind | Supermask):
                return f"stages.{index}.schedule.training"
        if self.baselines:
            return "baselines.0"
        if self.constraints.max_accuracy_drop is not None:
            return "constraints.max_accuracy_drop"
        return None
