"""A stage that aims at a cost: what each round aims at, and what was reached."""

from __future__ import annotations

from secateur.recipe import PruneStage
from secateur.recipe_target import Cost
from secateur.report import TargetReport

from engine.costs.exact import cost_of
from engine.costs.rounds import limit_after
from engine.errors import NothingPruned, TargetUnreachable
from engine.pipeline.search import Aim, CountedAim, amount_of
from engine.pipeline.setup import Workbench
from engine.pipeline.timed_aim import TimedAim
from engine.torchscript.program import Program


def aim_of(
    bench: Workbench,
    program: Program,
    stage: PruneStage,
    index: int,
    targets: dict[int, TargetReport],
    *,
    decided: bool = False,
    round_number: int = 1,
    rounds: int = 1,
) -> Aim | None:
    """What a round on channels or heads aims at; None where nothing is left to search for.

    Args:
        bench: of the job.
        program: as the round finds it.
        stage: of the recipe.
        index: of the stage.
        targets: of the stages so far; the first round writes its own here.
        decided: an earlier round has found what the whole stage removes.
        round_number: from 1.
        rounds: all.

    Raises:
        NothingPruned: the model costs no more than that as it is.
    """
    target = stage.allocation.target
    if target is None or decided:
        return None
    if target.of == "latency_ms":
        return TimedAim(
            target,
            batch_size=bench.recipe.measure.batch_sizes[0],
            runs=bench.recipe.measure.runs,
            device=bench.job.device,
            folder=bench.job.workdir,
        )
    report = targets.get(index) or begun(bench, program, stage, index)
    targets[index] = report
    whole_stage = stage.allocation.distribution is not None
    limit = (
        report.asked
        if whole_stage
        else limit_after(report.before, report.asked, round_number, rounds, stage.schedule)
    )
    return CountedAim(target.of, limit, bench.job.workdir, whole_stage)


def begun(
    bench: Workbench, program: Program, stage: PruneStage, index: int, *, masked: int = 0
) -> TargetReport:
    """The target of a stage, of a cost that can be counted, before its first round.

    Args:
        masked: parameters that masks hold at zero, where those do not count.

    Raises:
        NothingPruned: the model costs no more than that as it is.
    """
    target = stage.allocation.target
    if target is None:
        raise ValueError("a stage without a target")
    before = present_cost(bench, program, target.of) - masked
    if before == 0:
        raise NothingPruned(
            f"the plan removes nothing: the model has no {amount_of(target.of, 0)[2:]}",
            hint="aim at another cost in `target.of`",
            where="allocation.target",
        )
    asked = target.at_most if target.share is None else target.share * before
    if asked is None or asked >= before:
        raise NothingPruned(
            f"the plan removes nothing: the model has {amount_of(target.of, before)} as it is, "
            f"and the target is {amount_of(target.of, asked or 0)}",
            hint="ask for less, or for a `share` of the present cost",
            where="allocation.target",
        )
    return TargetReport(
        stage_index=index,
        of=target.of,
        before=before,
        share=target.share,
        asked=asked,
        tolerance=target.tolerance,
    )


def present_cost(bench: Workbench, program: Program, of: Cost) -> int:
    """What a program costs; the upload's bytes are those of the file that was sent."""
    if of == "bytes" and program is bench.original:
        return bench.job.model.stat().st_size
    return cost_of(of, program, bench.inputs, bench.job.workdir)


def reached(
    bench: Workbench,
    program: Program,
    stage: PruneStage,
    index: int,
    targets: dict[int, TargetReport],
    *,
    aim: Aim | None,
) -> None:
    """Note what a round made of the cost.

    Args:
        program: after the round.
        aim: of the round, as `aim_of` gave it; others as there.
    """
    target = stage.allocation.target
    if target is None:
        return
    if isinstance(aim, TimedAim) and aim.chosen is not None:
        times = aim.chosen
        asked = target.at_most if target.share is None else target.share * times.present
        targets[index] = TargetReport(
            stage_index=index,
            of=target.of,
            batch_size=times.batch_size,
            before=times.present,
            share=target.share,
            asked=asked or 0.0,
            reached=times.candidate,
            tolerance=target.tolerance,
            measured=aim.measured,
        )
    elif target.of != "latency_ms":
        cost = cost_of(target.of, program, bench.inputs, bench.job.workdir)
        targets[index].reached = cost
    targets[index].matched = is_reached(targets[index])


def in_stage_target(error: TargetUnreachable, field: str) -> TargetUnreachable:
    """The same error with the path of the recipe field in full."""
    return TargetUnreachable(error.title, hint=error.hint, where=f"{field}.{error.where}")


def is_reached(report: TargetReport) -> bool:
    """Whether a cost is not above what was asked, and not below it by more than the tolerance."""
    cost = report.reached
    least = (1 - report.tolerance) * report.asked
    return cost is not None and least <= cost <= report.asked * (1 + 1e-12)
