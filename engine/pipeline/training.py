"""A training step of a job: the rules of the recipe, the run, and the masks it leaves."""

from __future__ import annotations

from dataclasses import replace

from secateur.recipe import Agp, Rigl

from engine.job import Listener
from engine.masks import maskable, masked_count
from engine.pipeline.checkpoint import JobState
from engine.pipeline.growth import growth_of
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import FinetuneStep, TrainStep
from engine.pipeline.tickets import keep_trained, part_of, program_to_train
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
    return GradualPruning(
        stage.schedule, growth_of(bench, state, stage, step.stage_index), f"{field}.schedule"
    )
