"""The trade-off curves within a job: what every point starts from, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from secateur.recipe import Allocation, PruneStage
from secateur.report import Measurement
from secateur.report_tradeoff import TradeOffPoint

from engine.errors import NothingPruned
from engine.lottery.rewinding import snapshot, write
from engine.masks import Masks, maskable, prune_elements
from engine.measure.size import nonzero_count, parameter_count, weights_of
from engine.measure.tradeoff import Begun, Dense, Held, TradeOffStep
from engine.pipeline.checkpoint import JobState
from engine.pipeline.prune import plan_channels
from engine.pipeline.setup import Workbench
from engine.seeds import derive
from engine.torchscript.program import Program
from engine.training.evaluation import Evaluation, evaluate
from engine.training.run import TrainingRun


def begin_point(
    bench: Workbench, state: JobState, step: TradeOffStep, run: TrainingRun
) -> tuple[Program, TrainingRun]:
    """What a step trains, and its run under the step's masks; measured before the training.

    Raises:
        NothingPruned: no weight of the model can be masked.
    """
    curves = state.tradeoff
    if step.point is None:
        curves.begun = None
        return bench.original, replace(run, masks={})
    program, masks = _pruned(bench, state, step)
    found = _evaluate(bench, program)
    kept = nonzero_count(weights_of(program)) / max(parameter_count(weights_of(bench.original)), 1)
    metric = found.value if isfinite(found.value) else None
    curves.begun = Begun(found.top1, metric, found.loss, kept, masks)
    return program, replace(run, masks=masks)


def keep_point(state: JobState, step: TradeOffStep, trained: Program) -> None:
    """Hold what the line's next points are pruned from."""
    curves = state.tradeoff
    if step.point is None:
        curves.line, curves.held = step.index, Held(snapshot(trained), {})
    elif step.line.iterative and curves.begun is not None:
        curves.line, curves.held = step.index, Held(snapshot(trained), dict(curves.begun.masks))


def note_point(state: JobState, step: TradeOffStep, measured: Measurement) -> None:
    """Write a finished step into the curves."""
    curves = state.tradeoff
    if step.point is None:
        curves.dense[step.index] = _dense(measured)
        return
    if step.index not in curves.dense:
        curves.dense[step.index] = _dense(state.before)
    if curves.begun is None or measured.loss is None:
        raise ValueError("a point that was not measured before its training")
    begun = curves.begun
    curves.points.setdefault(step.index, []).append(
        TradeOffPoint(
            ratio=step.ratio,
            kept_fraction=begun.kept,
            pruned=begun.accuracy,
            pruned_metric=begun.metric,
            pruned_loss=begun.loss,
            retrained=measured.accuracy,
            retrained_metric=measured.deciding,
            retrained_loss=measured.loss,
        )
    )
    curves.begun = None


def _pruned(bench: Workbench, state: JobState, step: TradeOffStep) -> tuple[Program, Masks]:
    held = state.tradeoff.held_by(step.index)
    program = bench.original.twin()
    if held is not None:
        write(program, held.weights)
    tradeoff = step.tradeoff
    stage = PruneStage(
        stage="prune",
        granularity=tradeoff.granularity,
        criterion=step.line.criterion,
        allocation=Allocation(scope=tradeoff.scope, amount=step.ratio),
        exclude=tradeoff.exclude,
    )
    seed = derive(bench.recipe.seed, "tradeoff", step.index)
    if tradeoff.granularity == "element":
        if not maskable(program, tradeoff.exclude):
            raise NothingPruned(
                "no weight can be masked for the trade-off curves",
                hint="they prune parameters of two or more dimensions; `tradeoff.exclude` leaves "
                "none of them",
                where="recipe.tradeoff.exclude",
            )
        masks, _ = prune_elements(program, {} if held is None else held.masks, stage, seed=seed)
        return program, masks
    try:
        planned = plan_channels(program, stage, bench.inputs, seed=seed)
    except NothingPruned:
        # A share that rounds to no channel is the point where everything is kept.
        return program, {}
    return planned.compacted or program, {}


def _evaluate(bench: Workbench, program: Program) -> Evaluation:
    if bench.validation is None:
        raise ValueError("trade-off curves without a validation split; `prepare` refuses that")
    return evaluate(
        program,
        bench.validation,
        device=bench.job.device,
        example_batch=bench.example_batch,
        objective=bench.objective,
    )


def _dense(measured: Measurement) -> Dense:
    return Dense(accuracy=measured.accuracy, metric=measured.deciding)
