"""A recipe as the flat list of steps a job takes; checkpoints count in these."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.recipe import (
    Agp,
    Baseline,
    FinetuneOptions,
    LrRewind,
    PruneStage,
    RecalibrateStage,
    Recipe,
    Rigl,
    Stage,
    training_of,
)
from secateur.recipe_quantize import QuantizeOptions, QuantizeStage, StaticInt8, StoredOptions
from secateur.recipe_schedule import masks_while_training

from engine.lottery.baselines import BaselineStep
from engine.lottery.steps import TicketSchedule, TicketStep, after_rounds, before_round
from engine.measure.tradeoff import TradeOffStep, tradeoff_steps
from engine.selection.schedule import rounds_of


@dataclass(frozen=True)
class PruneStep:
    """One round of a prune stage."""

    stage_index: int
    stage: PruneStage
    round_number: int
    rounds: int

    @property
    def label(self) -> str:
        """Human name."""
        return "prune" if self.rounds == 1 else f"prune round {self.round_number} of {self.rounds}"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.stages.{self.stage_index}"

    @property
    def shown_round(self) -> int | None:
        """The round in reports; None where there is only one."""
        return None if self.rounds == 1 else self.round_number


@dataclass(frozen=True)
class FinetuneStep:
    """One training run: a stage of its own, or what follows a prune round.

    Attributes:
        changing: the prune stage whose masks change during this run.
        quantized: the quantise stage that this run is a part of.
    """

    stage_index: int
    options: FinetuneOptions
    round_number: int | None = None
    rounds: int = 1
    changing: PruneStage | None = None
    first_epoch: int = 0
    quantized: StoredOptions | StaticInt8 | None = None

    @property
    def label(self) -> str:
        """Human name."""
        if self.changing is not None:
            return {"agp": "prune while training", "rigl": "exchange while training"}[
                self.changing.schedule.kind
            ]
        if self.quantized is not None:
            return "finetune quantized"
        if self.round_number is None:
            return "finetune"
        return f"finetune after round {self.round_number} of {self.rounds}"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        stage = f"recipe.stages.{self.stage_index}"
        if self.quantized is not None:
            return f"{stage}.finetune"
        return stage if self.round_number is None else f"{stage}.schedule.finetune"

    @property
    def shown_round(self) -> int | None:
        """The round in reports."""
        return None if self.changing is not None else self.round_number

    @property
    def purpose(self) -> str:
        """Names the run for its seeds."""
        return f"finetune/{self.stage_index}/{self.round_number or 0}"

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return False


@dataclass(frozen=True)
class TournamentStep:
    """What decides the criterion of a prune stage, before its first round."""

    stage_index: int
    stage: PruneStage

    @property
    def label(self) -> str:
        """Human name."""
        return "tournament"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.stages.{self.stage_index}"

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return True


@dataclass(frozen=True)
class RecalibrateStep:
    """BatchNorm statistics measured anew."""

    stage_index: int
    stage: RecalibrateStage

    @property
    def label(self) -> str:
        """Human name."""
        return "recalibrate"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.stages.{self.stage_index}"

    @property
    def shown_round(self) -> int | None:
        """It has no rounds."""
        return None

    @property
    def purpose(self) -> str:
        """Names the run for its seeds."""
        return f"recalibrate/{self.stage_index}"

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return False


@dataclass(frozen=True)
class QuantizeStep:
    """Weights get fewer bits."""

    stage_index: int
    stage: QuantizeStage

    @property
    def label(self) -> str:
        """Human name."""
        return f"quantize ({self.stage.scheme})"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.stages.{self.stage_index}"

    @property
    def shown_round(self) -> int | None:
        """It has no rounds."""
        return None

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return False


TrainStep = FinetuneStep | TicketStep | BaselineStep | TradeOffStep
Step = PruneStep | TrainStep | TournamentStep | RecalibrateStep | QuantizeStep


def steps_of(recipe: Recipe, *, initial_given: bool = False) -> list[Step]:
    """Every step of the recipe, in order.

    Args:
        recipe: of the job.
        initial_given: initial weights came with the job, so that the upload is trained already.
    """
    steps: list[Step] = []
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, PruneStage):
            steps.append(_only_step(index, stage))
            if isinstance(stage, StoredOptions | StaticInt8) and stage.finetune is not None:
                steps.append(FinetuneStep(index, stage.finetune, quantized=stage))
            continue
        if stage.contest is not None:
            steps.append(TournamentStep(index, stage))
        schedule = stage.schedule
        ticket = isinstance(schedule, TicketSchedule)
        training = None if ticket else training_of(schedule)
        if isinstance(schedule, Agp) and masks_while_training(schedule, stage.granularity):
            steps.append(FinetuneStep(index, schedule.finetune, 1, changing=stage))
            continue
        changing = stage if isinstance(schedule, Rigl) else None
        first = schedule.rewind_to_epoch if isinstance(schedule, LrRewind) else 0
        rounds = rounds_of(schedule)
        for number in range(1, rounds + 1):
            if ticket:
                steps.extend(before_round(index, stage, number, given=initial_given))
            steps.append(PruneStep(index, stage, number, rounds))
            if training is not None:
                steps.append(FinetuneStep(index, training, number, rounds, changing, first))
        if ticket:
            steps.extend(after_rounds(index, stage))
    for index, baseline in enumerate(recipe.baselines):
        options = baseline.training or _as_the_stages_train(baseline, recipe.trainings())
        steps.append(BaselineStep(len(recipe.stages), index, baseline, options))
    if recipe.tradeoff is not None:
        steps.extend(tradeoff_steps(recipe.tradeoff, len(recipe.stages)))
    return steps


def _only_step(index: int, stage: Stage) -> Step:
    """The step of a stage that has one."""
    if isinstance(stage, RecalibrateStage):
        return RecalibrateStep(index, stage)
    if isinstance(stage, QuantizeOptions):
        return QuantizeStep(index, stage)
    if isinstance(stage, FinetuneOptions):
        return FinetuneStep(index, stage)
    raise TypeError(f"a {stage.stage} stage is no step towards a smaller model")


def _as_the_stages_train(baseline: Baseline, trainings: list[FinetuneOptions]) -> FinetuneOptions:
    """The last training, with the epochs of all of them; new weights are all trained."""
    epochs = sum(options.epochs for options in trainings)
    last = trainings[-1].model_copy(update={"epochs": epochs})
    return last if baseline.kind == "random_pruning" else last.model_copy(update={"freeze": []})
