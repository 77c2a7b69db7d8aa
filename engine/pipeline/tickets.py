"""The training runs of ticket stages within a job: what they start from, and what becomes of them.

A ticket stage keeps the weights of its rewinding point in the job's state, so in every checkpoint:
for `imp` those it begins with, for `imp_rewind` those after k steps, or the ones that came with
the job. Every later run starts from them under the masks found so far.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from secateur.recipe import ImpRewind, Supermask
from secateur.report import Measurement, MetricReport, TicketReport, TicketRound
from torch import Tensor

from engine.errors import EngineError
from engine.lottery.baselines import BaselineStep
from engine.lottery.initial import InitialWeightsInvalid, load_initial
from engine.lottery.rewinding import rewind, snapshot
from engine.lottery.stability import barriers
from engine.lottery.steps import TicketSchedule, TicketStep
from engine.masks import maskable
from engine.measure.tradeoff import TradeOffStep
from engine.pipeline.checkpoint import JobState
from engine.pipeline.masking import keep_learned, learns_masks
from engine.pipeline.scratch import as_long_as, from_scratch, note_baseline
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import (
    FinetuneStep,
    PruneStep,
    QuantizeStep,
    RecalibrateStep,
    Step,
    TrainStep,
)
from engine.pipeline.tradeoff import keep_point, note_point
from engine.torchscript.program import Program
from engine.training.accumulation import steps_of_an_epoch
from engine.training.evaluation import Evaluation, evaluate
from engine.training.run import Trained, TrainingRun


class RewindingTooLate(EngineError):
    """The rewinding point is not inside the training."""

    type = "rewinding-too-late"


def part_of(state: JobState, step: TrainStep, run: TrainingRun) -> TrainingRun:
    """The part of a training that a step stands for, and what moves in it."""
    if isinstance(step, BaselineStep):
        return as_long_as(state, step, run)
    if not isinstance(step, TicketStep):
        return run
    if step.part == "mask":
        return replace(run, optimizer=learns_masks(state, step, run))
    k = step.rewinding_step(run.per_epoch)
    return replace(run, stop_step=k) if step.part == "start" else replace(run, first_step=k)


def begin_stage(bench: Workbench, state: JobState, step: Step) -> None:
    """Keep the initial weights before the first step of a ticket stage; later ones find them.

    Raises:
        RewindingTooLate: step k is not inside the training.
        InitialWeightsInvalid: those that came with the job are of other shapes than the program
            that reaches the stage.
    """
    index = step.stage_index
    if isinstance(
        step, FinetuneStep | BaselineStep | TradeOffStep | RecalibrateStep | QuantizeStep
    ):
        return
    if index in state.lottery.reports:
        return
    if not isinstance(step.stage.schedule, TicketSchedule):
        return
    first = step if isinstance(step, TicketStep) else TicketStep(index, step.stage, "round")
    given = bench.job.initial
    per_epoch = _steps_of_an_epoch(bench, first)
    k = first.rewinding_step(per_epoch)
    if k >= per_epoch * first.options.epochs:
        raise RewindingTooLate(
            f"`rewind_step: {k}` is not before the end of the training, which takes "
            f"{per_epoch * first.options.epochs} steps",
            hint="lower it, or train for more epochs",
            where=f"recipe.stages.{index}.schedule.rewind_step",
        )
    if given is not None:
        state.lottery.initial[index] = _given(bench, state.program, index)
    elif first.part != "start":
        state.lottery.initial[index] = snapshot(state.program)
    state.lottery.reports[index] = TicketReport(
        stage_index=index,
        schedule=first.schedule.kind,
        initial="job" if given is None else "uploaded",
        rewound_to_step=k,
        rounds=[],
        copies=[],
        stability=[],
    )
    if given is not None:
        _note(state, first, 0, state.reports[-1] if state.reports else state.before)


def _steps_of_an_epoch(bench: Workbench, step: TicketStep) -> int:
    if bench.dataset is None:
        raise ValueError("a ticket stage without a dataset; `prepare` refuses that")
    train = bench.dataset.require(
        "train", step.field, targets=step.options.learns_from_targets(bench.recipe.objective)
    )
    return steps_of_an_epoch(step.options, train.samples)


def _given(bench: Workbench, program: Program, index: int) -> dict[str, Tensor]:
    path = bench.job.initial
    if path is None:
        raise ValueError("no initial weights came with the job")
    found = load_initial(path, bench.original)
    for name, tensor in program.attributes().items():
        if name in found and found[name].shape != tensor.shape:
            raise InitialWeightsInvalid(
                f"an earlier stage made `{name}` {list(tensor.shape)}; the initial weights are "
                f"{list(found[name].shape)}",
                hint="put the ticket stage before the stages that remove channels or layers, or "
                "send no initial weights: the job then keeps its own",
                where=f"recipe.stages.{index}",
            )
    return found


def program_to_train(bench: Workbench, state: JobState, step: TrainStep) -> Program:
    """What a training run starts from."""
    if isinstance(step, BaselineStep):
        return from_scratch(bench, state, step).program
    if isinstance(step, TicketStep) and step.part in ("copy", "mask"):
        return rewind(state.program, state.lottery.initial[step.stage_index], state.masks)
    return state.program


def keep_trained(bench: Workbench, state: JobState, step: TrainStep, run: Trained) -> None:
    """Take over what a training run gave."""
    trained = run.program
    if not step.aside:
        state.program = trained
    if isinstance(step, TradeOffStep):
        keep_point(state, step, trained)
    if not isinstance(step, TicketStep):
        return
    index = step.stage_index
    if step.part == "start":
        state.lottery.initial[index] = snapshot(trained)
    if step.part == "mask":
        keep_learned(state, step, run)
    copies = step.schedule.copies if isinstance(step.schedule, ImpRewind) else 1
    if copies > 1 and step.part in ("ticket", "copy"):
        kept = state.lottery.copies.setdefault(index, [])
        kept.append(snapshot(trained))
        if len(kept) == copies:
            _compare_copies(bench, state, index)


def note(bench: Workbench, state: JobState, step: TrainStep, measured: Measurement) -> None:
    """Write a trained network of a ticket stage, or a control, into the report."""
    if isinstance(step, BaselineStep):
        note_baseline(bench, state, step, measured)
    if isinstance(step, TradeOffStep):
        note_point(state, step, measured)
    if not isinstance(step, TicketStep) or step.part not in ("round", "ticket"):
        return
    rounds = step.rounds if step.part == "ticket" else step.number - 1
    _note(state, step, rounds, measured)


def note_pruned(state: JobState, step: PruneStep, measured: Measurement, removed: int) -> None:
    """Write a supermask, which is not trained, into the report."""
    if isinstance(step.stage.schedule, Supermask):
        # Where removed weights are not zero, no mask of the job tells of them.
        unheld = 0 if step.stage.schedule.removed == "zero" else removed
        _note(state, TicketStep(step.stage_index, step.stage, "round"), 1, measured, unheld)


def _note(
    state: JobState, step: TicketStep, rounds: int, measured: Measurement, unheld: int = 0
) -> None:
    report = state.lottery.reports[step.stage_index]
    weights = maskable(state.program, step.stage.exclude)
    total = sum(weight.numel() for weight in weights.values())
    held = unheld + sum(int((~mask).sum()) for name, mask in state.masks.items() if name in weights)
    report.rounds.append(
        TicketRound(
            round=rounds,
            weights_left=total - held,
            share_left=(total - held) / total,
            loss=measured.loss,
            accuracy=measured.accuracy,
            metric=measured.deciding,
        )
    )


def _compare_copies(bench: Workbench, state: JobState, index: int) -> None:
    validation = bench.validation
    if validation is None:
        raise ValueError("copies without a validation split; `prepare` refuses that")

    def judged(program: Program) -> Evaluation:
        return evaluate(
            program,
            validation,
            device=bench.job.device,
            example_batch=bench.example_batch,
            objective=bench.objective,
        )

    kept = state.lottery.copies.pop(index)
    report = state.lottery.reports[index]
    for copy in kept:
        found = judged(rewind(state.program, copy, {}))
        report.copies.extend([] if found.top1 is None else [found.top1])
        report.copies_metric.append(found.value if isfinite(found.value) else None)
    metric = bench.objective.report().decides
    report.stability.extend(
        barriers(state.program, kept, lambda program: _error(judged(program), metric))
    )


def _error(found: Evaluation, metric: MetricReport) -> float:
    """What rises where a network gets worse: the share of wrong answers where there is one."""
    if metric.fraction:
        return 1 - found.value
    return -found.value if metric.higher_is_better else found.value
