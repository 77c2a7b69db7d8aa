"""A training step of a job: the rules of the recipe, the run, and the masks it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from secateur.recipe import Agp, PruneStage, Rigl
from torch import Tensor

from engine.errors import NothingPruned
from engine.job import Listener
from engine.lottery.baselines import BaselineStep
from engine.masks import Masks, maskable, masked_count, prune_elements
from engine.measure.tradeoff import TradeOffStep
from engine.pipeline.checkpoint import JobState
from engine.pipeline.prune import in_stage
from engine.pipeline.random_control import as_recovered, randomly_pruned
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import FinetuneStep, TrainStep
from engine.pipeline.tickets import keep_trained, part_of, program_to_train
from engine.pipeline.tradeoff import begin_point
from engine.seeds import derive
from engine.torchscript.program import Program
from engine.training.dropout import rescaled_dropout
from engine.training.finetune import train
from engine.training.gradual import GradualPruning
from engine.training.rigl import RiggedLottery
from engine.training.run import TrainingObserver, TrainingRun
from engine.training.sparsity import SparsityRule


def train_step(
    bench: Workbench,
    state: JobState,
    step: TrainStep,
    observer: TrainingObserver,
    listener: Listener,
) -> tuple[Program, int]:
    """Train; the program that came out, and how many weights went while it trained.

    It becomes the program of the state, unless the step is one aside.

    Raises:
        EngineError: the run cannot be, or its schedule removes nothing.
    """
    dataset = bench.dataset
    if dataset is None:
        raise ValueError("fine-tuning without a dataset; `prepare` refuses that")
    if step.options.keep == "best" and bench.validation is None:
        listener.log(
            f"{step.label}: without a validation split the last epoch is kept, not the best"
        )
    run = TrainingRun(
        options=step.options,
        train=dataset.require("train", step.field),
        validation=bench.validation,
        masks=state.masks,
        seed=bench.recipe.seed,
        purpose=step.purpose,
        field=step.field,
        device=bench.job.device,
        example_batch=bench.example_batch,
        dropout=_dropout(bench, state, step, listener),
    )
    if isinstance(step, FinetuneStep):
        rule = _sparsity(bench, state, step)
        run = replace(run, sparsity=rule, first_epoch=step.first_epoch)
    run = part_of(state, step, run)
    if isinstance(step, BaselineStep) and step.baseline.kind == "random_pruning":
        control = randomly_pruned(bench, state, step)
        begun, run = control.program, as_recovered(bench, state, step, run, control.masks)
    elif isinstance(step, TradeOffStep):
        begun, run = begin_point(bench, state, step, run)
    else:
        begun = program_to_train(bench, state, step)
    trained = train(begun, run, observer, resume=state.training)
    removed = 0
    if run.sparsity is not None:
        removed = masked_count(trained.masks) - masked_count(state.masks)
        state.masks = trained.masks
    keep_trained(bench, state, step, trained.program)
    return trained.program, removed


def _dropout(
    bench: Workbench, state: JobState, step: TrainStep, listener: Listener
) -> dict[int, float]:
    if step.options.dropout == "keep":
        return {}
    rates = rescaled_dropout(
        state.program, bench.inputs, bench.original, state.masks, field=step.field
    )
    listener.log(
        f"{step.label}: dropout probabilities while training", probabilities=list(rates.values())
    )
    return rates


def _sparsity(bench: Workbench, state: JobState, step: FinetuneStep) -> SparsityRule | None:
    stage = step.changing
    if stage is None:
        return None
    # What training may not touch, it may not prune either.
    stage = stage.model_copy(update={"exclude": [*stage.exclude, *step.options.freeze]})
    field = f"recipe.stages.{step.stage_index}"
    if isinstance(stage.schedule, Rigl):
        names = frozenset(maskable(state.program, stage.exclude))
        return RiggedLottery(stage.schedule, names, f"{field}.schedule")
    if not isinstance(stage.schedule, Agp):
        raise TypeError(f"masks do not change while training under `{stage.schedule.kind}`")
    growth = _Growth(stage, derive(bench.recipe.seed, "prune", step.stage_index, 1))
    try:
        _, removed = growth.prune(state.program.twin(), state.masks, stage.schedule.rounds)
        if removed == 0:
            raise NothingPruned(
                "the plan removes nothing: the amount rounds to no weight, or those weights are "
                "masked already",
                hint="raise the amount; amounts count against all weights, masked ones included",
                where="allocation",
            )
    except NothingPruned as error:
        raise in_stage(error, field) from error
    return GradualPruning(stage.schedule, growth, f"{field}.schedule")


@dataclass(frozen=True)
class _Growth:
    """Chooses the masks of a ramp, always by the weights as they are then."""

    stage: PruneStage
    seed: int

    def __call__(
        self, program: Program, masks: Mapping[str, Tensor], round_number: int
    ) -> Mapping[str, Tensor]:
        held = {name: mask.cpu() for name, mask in masks.items()}
        return self.prune(program, held, round_number)[0]

    def prune(
        self, program: Program, masks: Mapping[str, Tensor], round_number: int
    ) -> tuple[Masks, int]:
        """Masks after a round of the ramp, and how many weights they add; zeroes those weights."""
        schedule = self.stage.schedule
        rounds = schedule.rounds if isinstance(schedule, Agp) else 1
        return prune_elements(
            program, masks, self.stage, seed=self.seed, round_number=round_number, rounds=rounds
        )
