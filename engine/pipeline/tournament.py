"""A tournament of a job: every criterion at the same cost, a short recovery, the best one wins.

It stands before the first round of its stage and leaves the job's program as it is. One contestant
is in memory at a time. The outcome of each is part of the next checkpoint, and all of them draw
the same seeds, so a job that is stopped goes on with the contestant it was at and ends with the
same bits. The stage then runs as if the recipe had named the winner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

from secateur.recipe import PruneStage, Tournament, entries
from secateur.report import Contestant, TournamentReport

from engine.costs.matching import is_matched
from engine.errors import CriterionDoesNotFit, EngineError, NothingPruned, TrainingDiverged
from engine.job import Listener
from engine.measure.macs import count_macs
from engine.measure.size import nonzero_count, parameter_count, weights_of
from engine.pipeline.channel_contest import ChannelContest
from engine.pipeline.checkpoint import JobState
from engine.pipeline.contest import Contest, Pruned
from engine.pipeline.element_contest import ElementContest
from engine.pipeline.features import matched_features
from engine.pipeline.learnt import learnt_from
from engine.pipeline.prune import in_stage
from engine.pipeline.scoring import in_stage_criterion
from engine.pipeline.setup import Workbench
from engine.pipeline.steps import PruneStep, TournamentStep
from engine.seeds import derive
from engine.torchscript.program import Program
from engine.tournament.ranking import winner
from engine.training.dropout import rescaled_dropout
from engine.training.evaluation import Evaluation, evaluate
from engine.training.finetune import train
from engine.training.run import TrainingRun
from engine.training.state import TrainingState


def hold_tournament(
    bench: Workbench,
    state: JobState,
    step: TournamentStep,
    listener: Listener,
    save: Callable[[], None],
) -> None:
    """Let every contestant that has no outcome yet compete, and note the winner in the state.

    Args:
        bench: of the job.
        state: with the program that reaches the stage, and the outcomes of an earlier attempt.
        step: which tournament.
        listener: hears of every contestant.
        save: keeps the state.

    Raises:
        NothingPruned: the stage's amount removes nothing, whoever judges.
        CriterionDoesNotFit: no contestant could compete, or none could reach the cost that the
            recipe asks for; says why not.
    """
    options = step.stage.contest
    if options is None:
        raise ValueError("a tournament step of a stage that names its criterion")
    try:
        contest = _contest(bench, state, step)
    except NothingPruned as error:
        raise in_stage(error, step.field) from error
    except CriterionDoesNotFit as error:
        raise in_stage_criterion(error, step.field) from error
    report = state.tournaments.setdefault(step.stage_index, _empty(contest, options, step))
    listed = list(entries(step.stage))
    for place, entry in enumerate(listed[len(report.contestants) :], len(report.contestants)):
        listener.progress(place, len(listed), "contestants")
        if entry.stage is None:
            outcome = Contestant(criterion=entry.criterion, reason=entry.reason)
        else:
            outcome = _compete(bench, contest, entry.stage, step, listener)
        report.contestants.append(outcome)
        _tell(listener, step, outcome, place, bench.objective.decides.name)
        save()
    listener.progress(len(listed), len(listed), "contestants")
    report.winner = winner(
        report.contestants, higher_is_better=bench.objective.decides.higher_is_better
    )
    if report.winner is None:
        raise _nobody(report, step)
    listener.log(f"{step.label}: `{report.winner}` wins")


def with_winner(step: PruneStep, state: JobState) -> PruneStep:
    """The step with the criterion that its tournament chose; the step itself where none was held.

    The stage is exactly what a recipe that names this criterion would have.
    """
    report = state.tournaments.get(step.stage_index)
    if report is None:
        return step
    for entry in entries(step.stage):
        if entry.criterion == report.winner and entry.stage is not None:
            return replace(step, stage=entry.stage)
    raise ValueError(f"the winner `{report.winner}` is none of the contestants")


def _contest(bench: Workbench, state: JobState, step: TournamentStep) -> Contest:
    kind = ElementContest if step.stage.granularity == "element" else ChannelContest
    return kind(bench, state.program, state.masks, step.stage, step.field)


def _empty(contest: Contest, options: Tournament, step: TournamentStep) -> TournamentReport:
    return TournamentReport(
        stage_index=step.stage_index,
        matched_by=contest.matched_by,
        before=contest.before,
        target=contest.target,
        tolerance=options.tolerance,
        recovery_epochs=0 if options.recovery is None else options.recovery.epochs,
        recovery_steps=options.recovery_steps,
        contestants=[],
        winner=None,
    )


def _compete(
    bench: Workbench,
    contest: Contest,
    stage: PruneStage,
    step: TournamentStep,
    listener: Listener,
) -> Contestant:
    options = step.stage.contest or Tournament()
    started = time.monotonic()
    try:
        # The seed of the stage's first round: what competes is what the stage would begin with.
        seed = derive(bench.recipe.seed, "prune", step.stage_index, 1)
        pruned = contest.prune(stage, seed)
        weights = weights_of(pruned.program)
        outcome = Contestant(
            criterion=stage.criterion,
            amount=pruned.amount,
            removed=pruned.removed,
            matched=is_matched(pruned.cost, contest.target, options.tolerance),
            macs=count_macs(pruned.program, bench.inputs),
            parameters=parameter_count(weights),
            nonzero_parameters=nonzero_count(weights),
        )
        found = _evaluated(bench, pruned.program)
        outcome.loss_before, outcome.accuracy_before = _finite(found.loss), found.top1
        outcome.metric_before = _finite(found.value)
        recovery = _Recovery(listener, f"{step.label}: {stage.criterion}")
        recovered = _recovered(bench, pruned, options, step, recovery)
        found = _evaluated(bench, recovered)
        outcome.loss, outcome.accuracy = _finite(found.loss), found.top1
        outcome.metric = _finite(found.value)
    except EngineError as error:
        if error.retryable:
            raise
        remedy = f"; {error.hint}" if error.hint else ""
        return Contestant(criterion=stage.criterion, reason=f"{error.title}{remedy}")
    outcome.seconds = time.monotonic() - started
    return outcome


def _evaluated(bench: Workbench, program: Program) -> Evaluation:
    if bench.validation is None:
        raise ValueError("a tournament without a validation split; `prepare` refuses that")
    return evaluate(
        program.twin(),
        bench.validation,
        device=bench.job.device,
        example_batch=bench.example_batch,
        objective=bench.objective,
    )


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _recovered(
    bench: Workbench,
    pruned: Pruned,
    options: Tournament,
    step: TournamentStep,
    recovery: _Recovery,
) -> Program:
    if options.recovery is None:
        return pruned.program
    if bench.dataset is None:
        raise ValueError("a recovery without a dataset; `prepare` refuses that")
    field = f"{step.field}.tournament.recovery"
    rates = (
        rescaled_dropout(pruned.program, bench.inputs, bench.original, pruned.masks, field=field)
        if options.recovery.dropout == "rescale"
        else {}
    )
    run = TrainingRun(
        options=options.recovery,
        train=learnt_from(bench.dataset, options.recovery, bench.recipe, field=field),
        validation=bench.validation,
        masks=pruned.masks,
        seed=bench.recipe.seed,
        # The same for all: they see the samples in one order.
        purpose=f"tournament/{step.stage_index}",
        field=field,
        device=bench.job.device,
        example_batch=bench.example_batch,
        dropout=rates,
        stop_step=options.recovery_steps,
        teacher=bench.original,
        features=matched_features(
            bench.original,
            pruned.program,
            options.recovery.distillation,
            bench.inputs,
            field=field,
        )[0],
        objective=bench.objective,
    )
    trained = train(pruned.program, run, recovery)
    if trained.diverged:
        # A job goes on with what was sound; a contest is not won by what was left of a run.
        raise TrainingDiverged(
            f"its recovery diverged {trained.stopped}",
            hint=f"lower the learning rate (it is {run.options.optimizer.lr})",
            where=f"{field}.optimizer.lr",
        )
    return trained.program


class _Recovery:
    """Passes on the metrics of a recovery; progress counts contestants, not their steps."""

    def __init__(self, listener: Listener, label: str) -> None:
        self._listener = listener
        self._label = label

    def progress(self, current: int, total: int, unit: str) -> None:
        """Not told."""

    def metric(self, name: str, value: float, step: int) -> None:
        """With the contestant's name."""
        self._listener.metric(name, value, step, self._label)

    def remark(self, message: str) -> None:
        """Of one contestant."""
        self._listener.log(f"{self._label}: {message}")

    def step_finished(self, state: TrainingState) -> None:
        """Checkpoints are by contestant."""

    def epoch_finished(self, state: TrainingState) -> None:
        """Checkpoints are by contestant."""


def _tell(
    listener: Listener, step: TournamentStep, outcome: Contestant, place: int, decides: str
) -> None:
    if outcome.reason is not None:
        listener.log(f"{step.label}: `{outcome.criterion}` cannot compete: {outcome.reason}")
        return
    data: dict[str, Any] = outcome.model_dump(exclude={"criterion", "reason"})
    listener.log(f"{step.label}: `{outcome.criterion}` competed", **data)
    label = f"{step.label}: {outcome.criterion}"
    if outcome.metric is not None:
        listener.metric(f"tournament/{decides}", outcome.metric, place + 1, label)
    if outcome.loss is not None:
        listener.metric("tournament/loss", outcome.loss, place + 1, label)


def _nobody(report: TournamentReport, step: TournamentStep) -> CriterionDoesNotFit:
    reasons = "; ".join(f"`{one.criterion}`: {one.reason}" for one in report.contestants)
    return CriterionDoesNotFit(
        f"no criterion of the tournament could compete: {reasons}",
        hint="give the data that they ask for, or other criteria in `tournament.criteria`; "
        "`l1_norm` needs none",
        where=f"{step.field}.tournament.criteria",
    )
