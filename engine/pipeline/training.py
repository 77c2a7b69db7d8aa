"""A training step of a job: the rules of the recipe, the run, and the masks it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from secateur.recipe import Agp, PruneStage, Rigl

from engine.job import Listener
from engine.lottery.baselines import BaselineStep
from engine.lottery.steps import TicketStep
from engine.masks import maskable, masked_count
from engine.measure.tradeoff import TradeOffStep
from engine.pipeline.caching import cached_teacher
from engine.pipeline.checkpoint import JobState
from engine.pipeline.features import matched_features
from engine.pipeline.growth import growth_of
from engine.pipeline.learnt import learnt_from
from engine.pipeline.pruning import take_out_dead
from engine.pipeline.quantised_training import keep_quantised, program_of, reparametrised
from engine.pipeline.random_control import as_recovered, randomly_pruned
from engine.pipeline.scoring import not_judged
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import FinetuneStep, TrainStep
from engine.pipeline.tickets import keep_trained, part_of, program_to_train
from engine.pipeline.tradeoff import begin_point
from engine.torchscript.program import Program
from engine.training.dropout import rescaled_dropout
from engine.training.finetune import train
from engine.training.gradual import GradualPruning, Ramp
from engine.training.movement import MovementPruning, MovementRecord
from engine.training.rigl import RiggedLottery
from engine.training.run import Pace, Trained, TrainingObserver, TrainingRun
from engine.training.sparsity import SparsityRule

Together = Callable[[Program, TrainingRun, TrainingObserver], Trained]
"""Carries out a run in several processes (see `engine.pipeline.distributed`)."""


class Log(Protocol):
    """Hears remarks worth keeping."""

    def log(self, message: str, **data: Any) -> None:
        """See `Listener`."""


def train_step(
    bench: Workbench,
    state: JobState,
    step: TrainStep,
    observer: TrainingObserver,
    listener: Listener,
    *,
    pace: Pace,
    together: Together | None = None,
) -> tuple[Program, int]:
    """Train; the program that came out, and how many weights went while it trained.

    It becomes the program of the state, unless the step is one aside.

    Args:
        pace: of checkpoints, where this process trains.
        together: trains in several processes; None trains in this one.

    Raises:
        EngineError: the run cannot be, or its schedule removes nothing.
    """
    begun, run = begin_training(bench, state, step, listener)
    if together is None:
        kept = cached_teacher(bench, run, state.kept, listener, label=step.label)
        if kept is not None:
            state.kept, run = kept, replace(run, cache=kept.cache)
        trained = train(begun, replace(run, pace=pace), observer, resume=state.training)
    else:
        trained = together(begun, run, observer)
    if trained.recording is not None:
        state.curves.append(
            trained.recording.curves(stage_index=step.stage_index, label=step.label)
        )
    if trained.stopped is not None:
        listener.log(f"{step.label}: stopped early {trained.stopped}")
    for remark in trained.remarks:
        state.warnings.append(f"{step.label}: {remark}")
    removed = 0
    if run.sparsity is not None:
        removed = masked_count(trained.masks) - masked_count(state.masks)
        state.masks = trained.masks
    _note_movement(state, step, run.sparsity)
    before = state.program
    keep_trained(bench, state, step, trained)
    if isinstance(step, FinetuneStep) and step.quantized is not None:
        keep_quantised(state, before, step, run, trained)
    if isinstance(step, FinetuneStep) and step.changing and _dead_go(step.changing):
        numbered = step.stage_index, step.changing
        take_out_dead(bench, state, numbered, step.label, listener)
    return (trained.program if step.aside else state.program), removed


def begin_training(
    bench: Workbench, state: JobState, step: TrainStep, listener: Log
) -> tuple[Program, TrainingRun]:
    """The program a training step begins with, and its run by the rules of the recipe.

    Nothing but the arguments decides them, so every process that has the job's files and a
    checkpoint comes to the same.

    Raises:
        EngineError: the run cannot be.
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
        train=learnt_from(dataset, step.options, bench.recipe, field=step.field),
        validation=bench.validation,
        masks=state.masks,
        seed=bench.recipe.seed,
        purpose=step.purpose,
        field=step.field,
        device=bench.job.device,
        example_batch=bench.example_batch,
        dropout=_dropout(bench, state, step, listener),
        teacher=bench.original,
        objective=bench.objective,
    )
    if isinstance(step, FinetuneStep):
        rule = _sparsity(bench, state, step)
        run = replace(
            run,
            sparsity=rule,
            first_epoch=step.first_epoch,
            reparametrised=reparametrised(state, step),
        )
    if _before_a_round_by_movement(bench, state, step):
        run = replace(run, sparsity=MovementRecord())
    run = part_of(state, step, run)
    if isinstance(step, BaselineStep) and step.baseline.kind == "random_pruning":
        control = randomly_pruned(bench, state, step)
        begun, run = control.program, as_recovered(bench, state, step, run, control.masks)
    elif isinstance(step, TradeOffStep):
        begun, run = begin_point(bench, state, step, run)
    else:
        begun = program_to_train(bench, state, step)
        if isinstance(step, FinetuneStep):
            begun = program_of(state, step, begun)
    features, left_out = matched_features(
        bench.original, begun, step.options.distillation, bench.inputs, field=step.field
    )
    if left_out:
        listener.log(f"{step.label}: modules whose features are not compared", modules=left_out)
    return begun, replace(run, features=features)


def _dead_go(stage: PruneStage) -> bool:
    """Whether dead neurons are taken out after this run; under `rigl` they are before it."""
    return stage.remove_dead and isinstance(stage.schedule, Agp)


def _dropout(bench: Workbench, state: JobState, step: TrainStep, listener: Log) -> dict[int, float]:
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
    growth, ramp = (
        growth_of(bench, state, stage, step.stage_index),
        Ramp(stage.schedule, f"{field}.schedule"),
    )
    if stage.criterion == "movement":
        return MovementPruning(ramp, growth.by_movement(state.masks), growth.weights)
    return GradualPruning(ramp, growth)


def _before_a_round_by_movement(bench: Workbench, state: JobState, step: TrainStep) -> bool:
    """Whether a prune round follows that is judged by how this run moves the weights."""
    if isinstance(step, BaselineStep | TradeOffStep):
        return False
    stage = bench.recipe.stages[step.stage_index]
    if not isinstance(stage, PruneStage):
        return False
    held = state.tournaments.get(step.stage_index)
    if (stage.criterion if held is None else held.winner) != "movement":
        return False
    if isinstance(step, TicketStep):
        return step.part == "round"
    return step.round_number is not None and step.round_number < step.rounds


def _note_movement(state: JobState, step: TrainStep, rule: SparsityRule | None) -> None:
    """Keep what a run accumulated for the next round, or say what it could not judge."""
    if isinstance(rule, MovementRecord):
        scores = {name: score.cpu() for name, score in rule.scores.items()}
        state.movement[step.stage_index] = scores
    if isinstance(rule, MovementPruning) and isinstance(step, FinetuneStep) and step.changing:
        lacking = sorted(set(rule.weights) - set(rule.scores))
        frozen = not_judged(state.program, step.changing, lacking)
        state.frozen.extend(item for item in frozen if item not in state.frozen)
