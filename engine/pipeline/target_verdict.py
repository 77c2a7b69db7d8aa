"""What the verdict says of targets: asked and reached, and what was missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from secateur.recipe import PruneStage, Recipe
from secateur.report import Latency, TargetReport

from engine.pipeline.search import amount_of
from engine.pipeline.verdict import NOISE


def timed_targets(recipe: Recipe) -> list[int]:
    """Batch sizes of the recipe's targets in milliseconds, those that are left out as well."""
    first = recipe.measure.batch_sizes[0]
    targets = [stage.allocation.target for stage in recipe.stages if isinstance(stage, PruneStage)]
    return [
        target.batch_size or first
        for target in targets
        if target is not None and target.of == "latency_ms"
    ]


def with_final_times(
    targets: Iterable[TargetReport], latencies: Sequence[Latency]
) -> list[TargetReport]:
    """The targets, those in milliseconds with what the result takes at the job's end."""
    ends = {latency.batch_size: latency.p50 for latency in latencies}
    return [
        report.model_copy(update={"final": ends.get(report.batch_size or 0)})
        if report.of == "latency_ms"
        else report
        for report in targets
    ]


def exceeded(targets: Iterable[TargetReport]) -> Iterator[str]:
    """Targets that the result does not keep, in words."""
    for report in targets:
        place = f"target of stage {report.stage_index + 1} NOT MET"
        asked = amount_of(report.of, report.asked)
        if report.reached is None or report.reached > report.asked:
            reached = "nothing" if report.reached is None else amount_of(report.of, report.reached)
            yield f"{place}: {asked} was asked for and {reached} reached"
        elif (
            report.final is not None
            and report.share is None
            and report.final > (1 + max(NOISE, report.tolerance)) * report.asked
        ):
            yield (
                f"{place} at the end of the job: {asked} was asked for, the stage's own "
                f"measurement gave {amount_of(report.of, report.reached)}, and the last one "
                f"{amount_of(report.of, report.final)}; the machine was slower then, or scatters"
            )


def not_matched(targets: Iterable[TargetReport]) -> Iterator[str]:
    """Targets that the result keeps by more than the tolerance, in words."""
    for report in targets:
        if report.matched or report.reached is None or report.reached > report.asked:
            continue
        yield (
            f"target of stage {report.stage_index + 1} NOT MATCHED: "
            f"{amount_of(report.of, report.asked)} was asked for and "
            f"{amount_of(report.of, report.reached)} reached, "
            f"{1 - report.reached / report.asked:.1%} less: the model that keeps one step more "
            "of the ranking is above the target"
        )
